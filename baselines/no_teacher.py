"""``no_teacher``: nobody teaches; the hard labels alone, strength 0. Refused where labels are not part of the setting (strength 1)."""

from __future__ import annotations

import numpy as np

from baselines.rule import RULE_OPTIONS, Rule
from kd_env.types import Observation


class NoTeacher(Rule):
    """Selects nobody."""

    access = "train labels"
    paper = ""
    env_options = {**RULE_OPTIONS, "action": "subset", "kd_weight": 0.0}

    def act(self, observation: Observation) -> np.ndarray:
        """Nobody, for every slot."""
        return np.zeros((len(observation["progress"]), self.selection.num_teachers), dtype=np.int8)
