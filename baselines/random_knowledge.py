"""``random_hard`` and ``random_soft``: random knowledge types in each phase; baselines of AKD (Wang et al. 2022, arXiv 2302.00444).

``random_hard`` turns each type on with probability 1/2, ``random_soft`` draws its strength uniformly from [0, 1]. Types, phases and weights
are those of ``akd``: label (where it is used), response, layer, relation; ten mini-batches; equal weights of the teachers.

How the paper draws could not be read: independence, uniform probabilities, and phases as long as the agent's are ours. A phase with all
types off teaches nothing, as when the agent chooses it.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from baselines.all_knowledge import KNOWLEDGE_OPTIONS, KNOWLEDGE_SELECTION
from baselines.rule import BaseRule
from kd_env.policies import PolicyBatch
from kd_env.types import Observation


class RandomHard(BaseRule):
    """Turns each knowledge type on or off."""

    paper = "Wang et al. 2022, arXiv 2302.00444"
    environment = KNOWLEDGE_SELECTION
    env_options = {**KNOWLEDGE_OPTIONS, "action": "hard", "updates_per_phase": 10}

    def decide(self, batch: PolicyBatch) -> Tensor:
        """Return random gates of 0 or 1, ``[S, M]``."""
        size = self.context.num_students, self.context.action.size
        return torch.from_numpy(self.rng.integers(2, size=size, dtype=np.int8))

    def selection_entropy(self, observation: Observation) -> np.ndarray:
        """Return 1: every subset is equally likely."""
        return np.ones(len(observation["progress"]))


class RandomSoft(BaseRule):
    """Gives each knowledge type a strength."""

    paper = RandomHard.paper
    environment = KNOWLEDGE_SELECTION
    env_options = {**RandomHard.env_options, "action": "soft"}

    def decide(self, batch: PolicyBatch) -> Tensor:
        """Return random gates in [0, 1], ``[S, M]``."""
        size = self.context.num_students, self.context.action.size
        actions = self.rng.uniform(-1.0, 1.0, size).astype(np.float32)
        return torch.from_numpy((actions.astype(np.float64) + 1.0) / 2.0)
