"""``random_hard`` and ``random_soft``: knowledge types drawn anew for each phase; baselines of AKD (Wang et al. 2022, arXiv 2302.00444).

``random_hard`` turns each type on or off with equal chances, ``random_soft`` draws its strength evenly from [0, 1]. Types, phases and
teachers are those of ``akd``: label (where it is part of the setting), response, layer, relation; ten mini-batches; all alike.

How the paper draws could not be read: independence, even chances, and phases as long as the agent's are ours. A phase with every type off
teaches nothing, as it does when the agent chooses it.
"""

from __future__ import annotations

import numpy as np

from baselines.all_knowledge import KNOWLEDGE_OPTIONS, KNOWLEDGE_SELECTION
from baselines.rule import Rule
from kd_env.types import Observation


class RandomHard(Rule):
    """Each type on or off."""

    paper = "Wang et al. 2022, arXiv 2302.00444"
    environment = KNOWLEDGE_SELECTION
    env_options = {**KNOWLEDGE_OPTIONS, "action": "hard", "updates_per_phase": 10}

    def act(self, observation: Observation) -> np.ndarray:
        """Coins ``[S, M]``."""
        return self.rng.integers(2, size=(len(observation["progress"]), len(self.selection.layout.knowledge)), dtype=np.int8)


class RandomSoft(Rule):
    """Each type at some strength."""

    paper = RandomHard.paper
    environment = KNOWLEDGE_SELECTION
    env_options = {**RandomHard.env_options, "action": "soft"}

    def act(self, observation: Observation) -> np.ndarray:
        """Actions ``[S, M]`` in [-1, 1], which mean strengths in [0, 1]."""
        size = (len(observation["progress"]), len(self.selection.layout.knowledge))
        return self.rng.uniform(-1.0, 1.0, size).astype(np.float32)
