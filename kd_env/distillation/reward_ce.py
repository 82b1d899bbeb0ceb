"""Compute the extra loss of the setting ``reward_ce``: cross-entropy on a mini-batch of labelled reward examples."""

from __future__ import annotations

import numpy as np
from torch import Tensor
from torch.nn.functional import cross_entropy

from kd_env.distillation.reward_split import RewardSplit
from kd_env.distillation.settings import DistillationSettings
from kd_env.distillation.state import RunState
from kd_env.student.protocol import Students
from kd_env.types import Decision

NAME = "reward_ce"
"""Name of the loss among the strengths of a decision."""


def reward_ce(
    students: Students, split: RewardSplit, state: RunState, settings: DistillationSettings, decision: Decision
) -> Tensor | float:
    """Return the cross-entropy of each student on its next reward examples times its strength, ``[S]``, differentiable.

    ``state`` counts the pass for the students with a strength other than 0. Without any, there is no pass, and the loss is 0.
    """
    strength = decision.strengths.get(NAME, settings.reward_ce)
    if isinstance(strength, Tensor):  # in float64, so that the mean of equal numbers is this number
        by_student = strength.expand(students.num_students * settings.batch_size).view(students.num_students, -1)
        strength = by_student.double().mean(1).to(students.device, students.dtype)  # [S]
        taught = (strength.detach() != 0.0).cpu().numpy()
    else:
        taught = np.full(students.num_students, strength != 0.0)
    if not taught.any():
        return 0.0
    count = min(settings.batch_size, split.num_labels)
    state.forward_examples += count * taught
    positions = split.draw(state.seed, "reward_ce", state.update, count)
    inputs, labels = split.at(positions, students.device)
    logits = students.forward(inputs, moves_statistics=False).logits  # running statistics are of the train split
    return strength * cross_entropy(logits, labels, reduction="none").view(students.num_students, -1).mean(1)
