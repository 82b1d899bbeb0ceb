"""Compute the extra loss of the setting ``reward_ce``: cross-entropy on a mini-batch of labelled reward examples."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import cross_entropy

from kd_env.distillation.reward_split import RewardSplit
from kd_env.distillation.state import RunState
from kd_env.student.protocol import Students


def reward_ce(students: Students, split: RewardSplit, state: RunState, batch_size: int) -> Tensor:
    """Return the cross-entropy of each student on its next reward examples, ``[S]``, differentiable; ``state`` counts the pass."""
    count = min(batch_size, split.num_labels)
    state.forward_examples += count
    positions = split.draw(state.seed, "reward_ce", state.update, count)
    inputs, labels = split.at(positions, students.device)
    logits = students.forward(inputs, moves_statistics=False).logits  # running statistics are of the train split
    return cross_entropy(logits, labels, reduction="none").view(students.num_students, -1).mean(1)
