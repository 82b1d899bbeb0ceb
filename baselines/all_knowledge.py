"""``all_knowledge``: every knowledge type at full strength, always; AKD's baseline without selection (Wang et al. 2022, arXiv 2302.00444).

The types are AKD's four, label, response, layer and relation, the label where it is part of the setting. All teachers teach alike.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from baselines.rule import Rule
from kd_env.policies import PolicyBatch

KNOWLEDGE_SELECTION = "kd_env/KnowledgeSelection-v0"
KNOWLEDGE_OPTIONS: dict[str, Any] = {"granularity": "batch", "reward_every": 0}
"""Env keywords of every rule for knowledge selection: like other rules it does not look at the reward."""


class AllKnowledge(Rule):
    """All types on."""

    paper = "Wang et al. 2022, arXiv 2302.00444"
    environment = KNOWLEDGE_SELECTION
    env_options = {**KNOWLEDGE_OPTIONS, "action": "hard"}

    def decide(self, batch: PolicyBatch) -> Tensor:
        """Return gates of one for every student."""
        return torch.ones(self.context.num_students, self.context.action.size)
