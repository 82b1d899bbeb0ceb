"""The reward split as a rule may read it: what the teachers say about its labelled examples, and the labels."""

from __future__ import annotations

import torch
from torch import Tensor

from kd_env.envs.selection import Selection
from kd_env.reward_meter import labelled_rows


def said_and_labels(selection: Selection) -> tuple[Tensor, Tensor]:
    """Teacher logits ``[n, K, C]`` and labels ``[n]`` of the ``reward_labels`` examples that the run has; no other label is read."""
    labels, settings = selection.material.labels["reward"], selection.settings
    rows = labelled_rows(labels.numpy(), settings.reward_labels, settings.label_seed)
    return torch.from_numpy(selection.material.bank.gather("reward", rows).logits), labels[rows]
