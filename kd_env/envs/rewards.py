"""Rewards, one class each: what a step pays, one value per instance of the students' mini-batches.

RL-KD's three (Yuan et al. 2021, arXiv 2012.06048, eqs. 6 to 8) look at the mini-batch after its update. ``dev_improvement`` looks at
held-out examples alone, and is the only one that does not read the labels of the training split. A reward of your own is a subclass of
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
from kd_env.knowledge import label, response
from kd_env.plugins import build
from kd_env.types import Batch, Decision


@dataclass(frozen=True)
class TaughtBatch:
    """What a reward may look at: mini-batches that were just taught. Values after the update are computed when they are first asked for.

    Attributes:
        run: the run, after the update.
        batch: the mini-batches, before the update.
        decision: what was taught.
        improvement: held-out improvement of each student since its last measurement ``[S]``, 0 where it was not due.
        held_out_metric: metric of each student on the held-out examples at the last measurement ``[S]``.
        mix: gamma of the ``mixed`` reward.
        taught: whether there was an update; if not, the logits are those before it.
    """

    run: Distillation
    batch: Batch
    decision: Decision
    improvement: np.ndarray
    held_out_metric: np.ndarray
    mix: float
    taught: bool = True

    def per_instance(self, values: np.ndarray) -> Tensor:
        """Repeat values of students ``[S]`` for their instances ``[S * B]``, float32."""
        return torch.from_numpy(np.repeat(values, len(self.batch.labels) // len(values))).float()

    @cached_property
    def logits(self) -> Tensor:
        """Students' logits after the update ``[S * B, C]``; costs one more forward pass."""
        return self.run.logits_after_update() if self.taught else self.batch.student.logits

    @cached_property
    def student_ce(self) -> Tensor:
        """Cross-entropy on the labels after the update ``[S * B]``. Reads training labels."""
        return label.ce(self.logits, self.batch.labels)

    @cached_property
    def distillation_loss(self) -> Tensor:
        """Response loss after the update, weighted over the selected teachers, ``[S * B]``."""
        losses = response.per_teacher(self.logits, self.batch.teacher_logits, self.run.settings.temperature)  # [S * B, K]
        return (next(iter(self.decision.weights.values())) * losses).sum(1)


class Reward(ABC):
    """What a step pays.

    Attributes:
        measures: whether it needs held-out measurements, ``improvement`` and ``held_out_metric``.
        reads_labels: whether it reads labels of the training split.
    """

    measures: ClassVar[bool] = False
    reads_labels: ClassVar[bool] = False

    @abstractmethod
    def pay(self, step: TaughtBatch) -> Tensor:
        """Return the reward of each instance ``[S * B]``."""


class DevImprovement(Reward):
    """The held-out improvement, the same for every instance; on one draw of reward examples it telescopes over the episode."""

    measures = True

    def pay(self, step: TaughtBatch) -> Tensor:
        """Return the student's improvement for each of its instances."""
        return step.per_instance(step.improvement)


class StudentLoss(Reward):
    """RL-KD's reward 1: -CE of the student. Reads training labels."""

    reads_labels = True

    def pay(self, step: TaughtBatch) -> Tensor:
        """Return ``-CE``."""
        return -step.student_ce


class StudentAndDistillationLoss(Reward):
    """RL-KD's reward 2: -CE - KL. Reads training labels, and pays for teachers who already agree with the student."""

    reads_labels = True

    def pay(self, step: TaughtBatch) -> Tensor:
        """Return ``-CE - KL``."""
        return -step.student_ce - step.distillation_loss


class Mixed(StudentAndDistillationLoss):
    """RL-KD's reward 3: gamma (-CE - KL) + (1 - gamma) Acc_dev."""

    measures = True

    def pay(self, step: TaughtBatch) -> Tensor:
        """Return the mixture; gamma is ``reward_mix``."""
        losses = super().pay(step)
        return step.mix * losses + (1.0 - step.mix) * step.per_instance(step.held_out_metric).to(losses.device)


REWARDS: dict[str, type[Reward]] = {
    "dev_improvement": DevImprovement,
    "student_loss": StudentLoss,
    "student_and_distillation_loss": StudentAndDistillationLoss,
    "mixed": Mixed,
}
"""Built-in rewards, by the name that the ``reward`` setting uses."""


def make_reward(text: str) -> Reward:
    """Return the reward that ``text`` names, built-in or ``module:Class``.

    Raises:
        InputError: there is none, or it is no :class:`Reward`.
    """
    return build(text, "reward", REWARDS, Reward)
