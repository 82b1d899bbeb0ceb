"""``all_knowledge``: all knowledge types at full strength, always; AKD's baseline without selection (Wang et al. 2022, arXiv 2302.00444).

The types are AKD's four: label (where it is used), response, layer and relation. All teachers have equal weights.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from baselines.rule import BaseRule
from kd_env.policies import PolicyBatch

KNOWLEDGE_SELECTION = "kd_env/KnowledgeSelection-v0"
KNOWLEDGE_OPTIONS: dict[str, Any] = {"granularity": "batch", "reward_every": 0}
"""Env keywords of all rules for knowledge selection: like other rules they do not use the reward."""


class AllKnowledge(BaseRule):
    """All types on."""

    paper = "Wang et al. 2022, arXiv 2302.00444"
    environment = KNOWLEDGE_SELECTION
    env_options = {**KNOWLEDGE_OPTIONS, "action": "hard"}

    def decide(self, batch: PolicyBatch) -> Tensor:
        """Return gates ``[S, M]`` of 1."""
        return torch.ones(self.context.num_students, self.context.action.size)
