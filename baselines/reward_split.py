"""The reward split as a policy may read it: the examples whose labels the run has. No other label is read."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from kd_env.distillation.reward_meter import labelled_rows
from kd_env.envs.selection import Selection


def labelled_reward_rows(selection: Selection) -> np.ndarray:
    """Rows ``[n]`` of the reward split, the ``reward_labels`` that the run has."""
    settings = selection.settings
    return labelled_rows(selection.data.labels["reward"].numpy(), settings.reward_labels, settings.label_seed)


def teacher_logits_and_labels(selection: Selection) -> tuple[Tensor, Tensor]:
    """Teacher logits ``[n, K, C]`` and labels ``[n]`` of those examples."""
    rows = labelled_reward_rows(selection)
    return torch.from_numpy(selection.data.bank.gather("reward", rows).logits), selection.data.labels["reward"][rows]
