"""``random_hard`` and ``random_soft``: knowledge types drawn anew for each phase; baselines of AKD (Wang et al. 2022, arXiv 2302.00444).

``random_hard`` turns each type on or off with equal chances, ``random_soft`` draws its strength evenly from [0, 1]. Types, phases and
teachers are those of ``akd``: label (where it is part of the setting), response, layer, relation; ten mini-batches; all alike.

How the paper draws could not be read: independence, even chances, and phases as long as the agent's are ours. A phase with every type off
teaches nothing, as it does when the agent chooses it.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from baselines.all_knowledge import KNOWLEDGE_OPTIONS, KNOWLEDGE_SELECTION
from baselines.rule import Rule
from kd_env.policies import PolicyBatch
from kd_env.types import Observation


class RandomHard(Rule):
    """Each type on or off."""

    paper = "Wang et al. 2022, arXiv 2302.00444"
    environment = KNOWLEDGE_SELECTION
    env_options = {**KNOWLEDGE_OPTIONS, "action": "hard", "updates_per_phase": 10}

    def decide(self, batch: PolicyBatch) -> Tensor:
        """Draw gates of 0 or 1."""
        size = self.context.num_students, self.context.action.size
        return torch.from_numpy(self.rng.integers(2, size=size, dtype=np.int8))

    def selection_entropy(self, observation: Observation) -> np.ndarray:
        """Return 1: every subset is equally likely."""
        return np.ones(len(observation["progress"]))


class RandomSoft(Rule):
    """Each type at some strength."""

    paper = RandomHard.paper
    environment = KNOWLEDGE_SELECTION
    env_options = {**RandomHard.env_options, "action": "soft"}

    def decide(self, batch: PolicyBatch) -> Tensor:
        """Draw gates from [0, 1]."""
        size = self.context.num_students, self.context.action.size
        actions = self.rng.uniform(-1.0, 1.0, size).astype(np.float32)
        return torch.from_numpy((actions.astype(np.float64) + 1.0) / 2.0)
