"""Compute the rewards of actions without teaching the student. In: actions. Out: rewards."""

from __future__ import annotations

import numpy as np

from kd_env.envs.selection import Selection
from kd_env.types import Observation


class Rehearsal:
    """A copy of the environment whose student does not learn; rewards are computed from the student as it is."""

    def __init__(self, selection: Selection) -> None:
        """Copy ``selection``, where forward passes are counted."""
        self._copy, self._original = selection.fork(), selection

    def observation(self) -> Observation:
        """Return the observation of the next mini-batch."""
        return self._copy.observation()

    def pay(self, action: np.ndarray) -> np.ndarray:
        """Return the rewards ``[num_envs]`` of ``action`` and go on to the next mini-batch."""
        self._original.distillation.state.forward_examples += self._copy.settings.distillation.batch_size
        return self._copy.rehearse(action)
