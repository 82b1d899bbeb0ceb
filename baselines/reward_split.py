"""The reward split as a policy may read it: the examples whose labels the run has. No other label is read."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from kd_env.envs.selection import Selection
from kd_env.reward_meter import labelled_rows


def rows_with_labels(selection: Selection) -> np.ndarray:
    """Rows ``[n]`` of the reward split, the ``reward_labels`` that the run has."""
    settings = selection.settings
    return labelled_rows(selection.material.labels["reward"].numpy(), settings.reward_labels, settings.label_seed)


def said_and_labels(selection: Selection) -> tuple[Tensor, Tensor]:
    """Teacher logits ``[n, K, C]`` and labels ``[n]`` of those examples."""
    rows = rows_with_labels(selection)
    return torch.from_numpy(selection.material.bank.gather("reward", rows).logits), selection.material.labels["reward"][rows]
