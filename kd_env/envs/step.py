"""Define the result of one step, from which rewards, ``info``, traces and pictures are made."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from kd_env.types import Batch, Decision, DecodedAction


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
    """Return two parts of a phase as one step."""
    zero = np.zeros_like(after.rewards)
    names = {**before.reward_terms, **after.reward_terms}
    validation = _latest(before.validation, after.validation)
    return replace(
        after,
        rewards=before.rewards + after.rewards,
        reward_terms={name: before.reward_terms.get(name, zero) + after.reward_terms.get(name, zero) for name in names},
        improvement=_latest(before.improvement, after.improvement),
        validation=None if validation is None else np.where(after.diverged, np.nan, validation),
        active=before.active,
    )


def _latest(before: np.ndarray | None, after: np.ndarray | None) -> np.ndarray | None:
    """Return the last measurement of each student, ``[S]``."""
    if before is None or after is None:
        return before if after is None else after
    return np.where(np.isnan(after), before, after)


def fill_slots(values: np.ndarray, students: np.ndarray, value: float) -> np.ndarray:
    """Return values ``[slots, ...]`` with ``value`` in the slots of ``students``, a mask ``[S]``."""
    if not students.any():
        return values
    mask = np.repeat(students, len(values) // len(students))
    return np.where(mask.reshape(-1, *[1] * (values.ndim - 1)), value, values)
