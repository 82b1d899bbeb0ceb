"""The record of one step, which every view, listener and trace is made from."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from kd_env.types import Batch, Decision, DecodedAction


@dataclass(frozen=True)
class Step:
    """What one update did. Instances are those of student 0's mini-batch, then of student 1's and so on; for rows see ``Selection``."""

    batch: Batch
    action: DecodedAction  # rows; of a whole decision, the teachers' weights of its first knowledge type
    decision: Decision | None  # what was given in place of an action
    weights: np.ndarray  # [S * B, K]
    student_ce: np.ndarray  # [S * B], before the update
    rewards: np.ndarray  # [rows]
    terms: dict[str, np.ndarray]  # parts of the reward besides improvement, [rows] each
    credit: dict[str, np.ndarray]  # ``credit`` [rows, K or M], ``knowledge_credit`` [rows, M], where there is any
    improvement: np.ndarray | None  # [S], NaN where not due
    validation: np.ndarray | None  # [S], NaN where not due
    diverged: np.ndarray  # [S]
    active: np.ndarray  # [S], the students that were taught


def merge(before: Step, after: Step) -> Step:
    """Return two parts of a phase as one step."""
    nothing = np.zeros_like(after.rewards)
    validation = _latest(before.validation, after.validation)
    return replace(
        after,
        rewards=before.rewards + after.rewards,
        terms={name: before.terms.get(name, nothing) + after.terms.get(name, nothing) for name in {**before.terms, **after.terms}},
        improvement=_latest(before.improvement, after.improvement),
        validation=None if validation is None else np.where(after.diverged, np.nan, validation),
        active=before.active,
    )


def _latest(before: np.ndarray | None, after: np.ndarray | None) -> np.ndarray | None:
    """Return the last measurement of each student ``[S]``."""
    if before is None or after is None:
        return before if after is None else after
    return np.where(np.isnan(after), before, after)
