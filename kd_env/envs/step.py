"""Define the result of one step, from which rewards, ``info``, traces and pictures are made."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from kd_env.types import Batch, Decision, DecodedAction

DIVERGED_REWARD = -10.0
"""Reward of each slot of a student in the step in which it diverges. It is finite, and far below the rewards of students that learn. The
improvement of a student that is about to diverge can be lower still."""


@dataclass(frozen=True)
class Step:
    """The result of one update, or of one phase. For slots, see :class:`~kd_env.envs.selection.Selection`."""

    batch: Batch
    action: DecodedAction  # [slots]; for a whole decision, the teachers' weights of its first knowledge type
    decision: Decision | None  # the whole decision that replaced an action
    weights: np.ndarray  # [S * B, K]
    student_ce: np.ndarray  # [S * B], before the update
    rewards: np.ndarray  # [slots]
    reward_terms: dict[str, np.ndarray]  # other numbers behind the reward, each [slots]
    credit: dict[str, np.ndarray]  # ``credit`` [slots, K or M] and ``knowledge_credit`` [slots, M], if there is credit
    credit_fold: np.ndarray | None  # ``[slots]``, fold of the reward labels that the credit comes from
    improvement: np.ndarray | None  # [S], NaN if not due
    validation: np.ndarray | None  # [S], NaN if not due
    diverged: np.ndarray  # [S]
    active: np.ndarray  # [S], the students that were taught


def merge(before: Step, after: Step) -> Step:
    """Return two parts of a phase as one step. For a student that ended in ``before``, keep its mini-batch of ``before``."""
    zero = np.zeros_like(after.rewards)
    names = {**before.reward_terms, **after.reward_terms}
    validation = _latest(before.validation, after.validation)
    ended, first_fold, fold = before.active & ~after.active, before.credit_fold, after.credit_fold
    ids = fill_slots(after.batch.example_ids, ended, before.batch.example_ids)
    return replace(
        after,
        batch=replace(after.batch, update=np.where(ended, before.batch.update, after.batch.update), example_ids=ids),
        student_ce=fill_slots(after.student_ce, ended, before.student_ce),
        rewards=fill_slots(before.rewards + after.rewards, after.active & after.diverged, DIVERGED_REWARD),
        reward_terms={name: before.reward_terms.get(name, zero) + after.reward_terms.get(name, zero) for name in names},
        credit={name: fill_slots(values, ended, before.credit[name]) for name, values in after.credit.items()},
        credit_fold=None if fold is None or first_fold is None else fill_slots(fold, ended, first_fold),
        improvement=_latest(before.improvement, after.improvement),
        validation=None if validation is None else np.where(after.diverged, np.nan, validation),
        active=before.active,
    )


def _latest(before: np.ndarray | None, after: np.ndarray | None) -> np.ndarray | None:
    """Return the last measurement of each student, ``[S]``."""
    if before is None or after is None:
        return before if after is None else after
    return np.where(np.isnan(after), before, after)


def fill_slots(values: np.ndarray, students: np.ndarray, others: np.ndarray | float) -> np.ndarray:
    """Return values ``[slots or rows, ...]`` with those of ``others``, an equal shape or a number, for ``students``, a mask ``[S]``."""
    if not students.any():
        return values
    mask = np.repeat(students, len(values) // len(students))
    return np.where(mask.reshape(-1, *[1] * (values.ndim - 1)), others, values)
