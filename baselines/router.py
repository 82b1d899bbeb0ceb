"""``router``: a gating network fitted by supervision on the reward split predicts which teacher is right and chooses it for the instance.

A rival of all policies that are paid with held-out improvement: it uses the same labels and needs no reinforcement learning.
"""

from __future__ import annotations

import torch
from torch import Tensor

from baselines.gating import GatingNetwork, fit_on_reward_split, gating_inputs
from baselines.rule import ONE, BaseRule, choice
from kd_env.policies import Choice, PolicyBatch, PolicyContext, SearchSpace
from kd_env.randomness import seeded


class Router(BaseRule):
    """Fits its gating network once, before the first update."""

    access = "reward labels"
    learns_from = "reward labels, once"
    env_options = ONE
    min_teachers = 2
    search_space: SearchSpace = {"teacher_features": Choice((True, False))}

    def __init__(self, context: PolicyContext, seed: int = 0, teacher_features: bool = True) -> None:
        """Fit the gating network; with ``teacher_features`` it reads the teachers' features besides their outputs."""
        super().__init__(context, seed)
        self.teacher_features = teacher_features
        widths = context.teacher_widths if teacher_features else ()
        with seeded(seed):
            self.gate = GatingNetwork(context.num_teachers * context.num_classes + sum(widths), context.num_teachers)
            fit_on_reward_split(self.gate, context, teacher_features)

    @torch.no_grad()
    def decide(self, batch: PolicyBatch) -> Tensor:
        """Choose the teacher that is most likely right."""
        inputs = gating_inputs(batch.teacher_logits, batch.teacher_features if self.teacher_features else ())
        return choice(self.gate(inputs.float().cpu()).argmax(1), batch.num_teachers)
