"""``router``: a gate fitted by supervision on the reward split tells which teacher is right; each instance goes to that one.

The rival of every policy that is paid in held-out improvement, since it spends the same labels and needs no reinforcement learning.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from baselines.gate import Gate, fit, gate_inputs
from baselines.reward_split import labelled_reward_rows
from baselines.rule import Choosing
from kd_env.envs.selection import Selection
from kd_env.randomness import seeded
from kd_env.types import Batch


class Router(Choosing):
    """Fits once, before the first update."""

    access = "reward labels"
    learns_from = "reward labels, once"
    paper = ""
    min_teachers = 2

    def __init__(self, env: Any, seed: int = 0, teacher_features: bool = True) -> None:
        """Fit the gate; ``teacher_features`` adds the teachers' pooled features to their outputs."""
        super().__init__(env, seed)
        self.teacher_features = teacher_features
        widths = self.selection.data.bank.widths if teacher_features else []
        num_inputs = self.selection.num_teachers * self.selection.data.task.num_classes + sum(widths)
        with seeded(seed):
            self.gate = Gate(num_inputs, self.selection.num_teachers)
            fit_on_reward_split(self.gate, self.selection, teacher_features)

    @torch.no_grad()
    def choose(self, features: Batch) -> np.ndarray:
        """The teacher most likely right."""
        inputs = gate_inputs(features.teacher_logits, features.teacher_features if self.teacher_features else ())
        chosen: np.ndarray = self.gate(inputs.float().cpu()).argmax(1).numpy()
        return chosen


def fit_on_reward_split(gate: Gate, selection: Selection, teacher_features: bool) -> None:
    """Fit ``gate`` on the reward examples that have labels."""
    rows = labelled_reward_rows(selection)
    said, labels = selection.data.bank.gather("reward", rows), selection.data.labels["reward"][rows]
    logits = torch.from_numpy(said.logits)
    features: list[Tensor] = [torch.from_numpy(feature) for feature in said.features] if teacher_features else []
    fit(gate, gate_inputs(logits, features), (logits.argmax(2) == labels[:, None]).float())
