"""Rewards: pure functions of what happened in a step, one value a row, a row being an instance of a student's mini-batch.

RL-KD's three (Yuan et al. 2021, arXiv 2012.06048, eqs. 6 to 8) look at the mini-batch after its update. ``dev_improvement`` looks at
held-out examples alone, and is the one that does not read the labels of the training split.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from kd_env.distillation.settings import Reward


@dataclass(frozen=True)
class StepRecord:
    """What a reward may look at.

    Attributes:
        improvement: ``[rows]`` held-out improvement of the row's student since its last measurement, 0 where none was due.
        dev_metric: ``[rows]`` metric on the held-out examples at the last measurement.
        student_ce: ``[rows]`` cross-entropy on the labels after the update.
        distillation: ``[rows]`` response loss after the update, weighted over the selected teachers.
        mix: gamma.
    """

    improvement: Tensor | None = None
    dev_metric: Tensor | None = None
    student_ce: Tensor | None = None
    distillation: Tensor | None = None
    mix: float = 0.5


def dev_improvement(record: StepRecord) -> Tensor:
    """The held-out improvement, the same for every instance; on one draw of reward examples it telescopes over the episode."""
    assert record.improvement is not None
    return record.improvement


def student_loss(record: StepRecord) -> Tensor:
    """RL-KD's reward 1: -CE of the student. Reads training labels."""
    assert record.student_ce is not None
    return -record.student_ce


def student_and_distillation_loss(record: StepRecord) -> Tensor:
    """RL-KD's reward 2: -CE - KL. Reads training labels, and pays for teachers who already agree with the student."""
    assert record.student_ce is not None
    assert record.distillation is not None
    return -record.student_ce - record.distillation


def mixed(record: StepRecord) -> Tensor:
    """RL-KD's reward 3: gamma (-CE - KL) + (1 - gamma) Acc_dev."""
    assert record.dev_metric is not None
    return record.mix * student_and_distillation_loss(record) + (1.0 - record.mix) * record.dev_metric


REWARDS: dict[Reward, Callable[[StepRecord], Tensor]] = {
    "dev_improvement": dev_improvement,
    "student_loss": student_loss,
    "student_and_distillation_loss": student_and_distillation_loss,
    "mixed": mixed,
}


def soft_exploration(gates: np.ndarray, previous: np.ndarray) -> np.ndarray:
    """AKD's bonus for soft actions (Wang et al. 2022, arXiv 2302.00444): 1 - cosine to the previous phase's, ``[S, M]`` twice -> ``[S]``.

    The paper says that it follows from the cosine; that it is one minus it is our reading. An action of zeros is like none.
    """
    norms = np.linalg.norm(gates, axis=1) * np.linalg.norm(previous, axis=1)
    cosine: np.ndarray = np.divide((gates * previous).sum(1), norms, out=np.zeros(len(gates)), where=norms > 0.0)
    return 1.0 - cosine


def hard_exploration(times: np.ndarray) -> np.ndarray:
    """AKD's bonus for hard actions, from how many ``times [S]`` this one has been taken, now included: its inverse root (our reading)."""
    bonus: np.ndarray = np.asarray(times, dtype=np.float64) ** -0.5
    return bonus
