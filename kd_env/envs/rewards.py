"""Define the rewards of a step, one class each: one value per instance of the students' mini-batches.

The three rewards of RL-KD (Yuan et al. 2021, arXiv 2012.06048, eqs. 6 to 8) are computed on the mini-batch after its update, and read the
labels of the training split. ``dev_improvement`` is computed on held-out examples only. A reward of your own is a subclass of
:class:`Reward`, used as ``reward="module:Class"``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from kd_env.distillation import Distillation
from kd_env.errors import InputError
from kd_env.knowledge import label, response
from kd_env.plugins import build, faults_in
from kd_env.types import Batch, Decision


@dataclass(frozen=True)
class TaughtBatch:
    """The values that a reward may use: the mini-batches of the last update. Values after the update are computed on first use.

    Attributes:
        run: run after the update.
        batch: mini-batches with the outputs before the update.
        decision: decision that was applied.
        improvement: held-out improvement of each student since its last measurement, ``[S]``; 0 if no measurement was due.
        held_out_metric: metric of each student on the held-out examples at the last measurement, ``[S]``.
        mix: gamma of the ``mixed`` reward.
        updated: whether there was an update; if not, :attr:`logits` are the logits of ``batch``.
    """

    run: Distillation
    batch: Batch
    decision: Decision
    improvement: np.ndarray
    held_out_metric: np.ndarray
    mix: float
    updated: bool = True

    def per_instance(self, values: np.ndarray) -> Tensor:
        """Repeat values per student for their instances, ``[S]`` -> ``[S * B]``, float32."""
        return torch.from_numpy(np.repeat(values, len(self.batch.labels) // len(values))).float()

    @cached_property
    def logits(self) -> Tensor:
        """Logits of the students after the update, ``[S * B, C]``. They cost one extra forward pass."""
        return self.run.logits_after_update() if self.updated else self.batch.student.logits

    @cached_property
    def student_ce(self) -> Tensor:
        """Cross-entropy on the labels after the update, ``[S * B]``. It reads training labels."""
        return label.ce(self.logits, self.batch.labels)

    @cached_property
    def distillation_loss(self) -> Tensor:
        """Response loss after the update, weighted over the teachers, ``[S * B]``; 0 if the decision has no weights."""
        losses = response.per_teacher(self.logits, self.batch.teacher_logits, self.run.settings.temperature)  # [S * B, K]
        weights = self.decision.weights.get("response", next(iter(self.decision.weights.values()), None))
        return torch.zeros_like(losses[:, 0]) if weights is None else (weights * losses).sum(1)


class Reward(ABC):
    """Base class of rewards.

    Attributes:
        measures: whether the reward needs held-out measurements (``improvement``, ``held_out_metric``).
        reads_labels: whether the reward reads labels of the training split.
    """

    measures: ClassVar[bool] = False
    reads_labels: ClassVar[bool] = False

    @abstractmethod
    def pay(self, taught: TaughtBatch) -> Tensor:
        """Return the reward of each instance, ``[S * B]``."""


class DevImprovement(Reward):
    """Pay the held-out improvement, equal for all instances. On one draw of reward examples, it sums to the improvement of the episode."""

    measures = True

    def pay(self, taught: TaughtBatch) -> Tensor:
        """Return the student's improvement for each of its instances."""
        return taught.per_instance(taught.improvement)


class StudentLoss(Reward):
    """Pay RL-KD's reward 1: -CE of the student. It reads training labels."""

    reads_labels = True

    def pay(self, taught: TaughtBatch) -> Tensor:
        """Return ``-CE``."""
        return -taught.student_ce


class StudentAndDistillationLoss(Reward):
    """Pay RL-KD's reward 2: -CE - KL. It reads training labels, and favours teachers that already agree with the student."""

    reads_labels = True

    def pay(self, taught: TaughtBatch) -> Tensor:
        """Return ``-CE - KL``."""
        return -taught.student_ce - taught.distillation_loss


class Mixed(Reward):
    """Pay RL-KD's reward 3: gamma (-CE - KL) + (1 - gamma) Acc_dev. It reads training labels."""

    reads_labels = True
    measures = True

    def pay(self, taught: TaughtBatch) -> Tensor:
        """Return the mixture, with gamma ``reward_mix``."""
        losses = -taught.student_ce - taught.distillation_loss
        return taught.mix * losses + (1.0 - taught.mix) * taught.per_instance(taught.held_out_metric).to(losses.device)


REWARDS: dict[str, type[Reward]] = {
    "dev_improvement": DevImprovement,
    "student_loss": StudentLoss,
    "student_and_distillation_loss": StudentAndDistillationLoss,
    "mixed": Mixed,
}
"""Built-in rewards by their name in the setting ``reward``."""


def make_reward(text: str) -> Reward:
    """Return the reward ``text``, built-in or ``module:Class``.

    Raises:
        InputError: the reward does not exist, or it is not a :class:`Reward`.
    """
    return build(text, "reward", REWARDS, Reward)


def checked_reward(reward: Reward, taught: TaughtBatch) -> Tensor:
    """Return the rewards of a step, ``[S * B]``, without a graph.

    Raises:
        InputError: a user-defined reward fails, or returns something else, or NaN or infinite numbers although the student's outputs
            are finite.
    """
    with faults_in(f"reward {type(reward).__name__}", type(reward)):
        paid: object = reward.pay(taught)
    rows = len(taught.batch.labels)
    if not isinstance(paid, Tensor) or paid.shape != (rows,):
        shown = f"a tensor {list(paid.shape)}" if isinstance(paid, Tensor) else f"a {type(paid).__name__}"
        raise InputError(f"reward {type(reward).__name__}: pay() returned {shown}, expected a tensor [{rows}], one value per instance")
    if type(reward) not in REWARDS.values():
        _require_finite(type(reward).__name__, paid, taught)
    return paid.detach()


def _require_finite(name: str, paid: Tensor, taught: TaughtBatch) -> None:
    """Check the rewards of the students that have not diverged and whose outputs are finite."""

    def finite(values: Tensor) -> np.ndarray:
        return np.asarray(values.isfinite().reshape(taught.run.num_students, -1).all(1).cpu())

    wrong = ~finite(paid) & ~taught.run.diverged
    if wrong.any() and (wrong & finite(taught.logits)).any():
        raise InputError(f"reward {name}: pay() returned NaN or infinite numbers; return finite ones")
