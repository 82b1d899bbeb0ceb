"""``prior_surrogate``: the hint loss on part of the channels; the teacher fills in the rest; after DPK (Qiu et al. 2022, arXiv 2206.06067).

``mean_d (u_d - t_d)^2``, where ``t`` are the teacher's features and ``u_d`` is ``t_d`` in the channels of the prior and ``s_d``, the
student's mapped feature, in the others. The share of channels in the prior is ``1 - CKA(s, t)``, linear CKA (Kornblith et al. 2019, arXiv
1905.00414) over the mini-batch: the less similar the features are, the more channels are filled in, and the easier the rest is to learn.
Neither the share nor the mask carries a gradient.

This is a surrogate of this project. The paper mixes the two features under a random mask and trains an encoder and a decoder that rebuild
the teacher's features from the mixture. Its equations could not be opened; the share follows descriptions of it. Deviations: there is no
encoder and no decoder, so the channels of the prior have no error, and the loss is that of the other channels. The mask is not random:
channels enter the prior in a fixed, evenly spread order (multiples of the golden ratio), which starts at a place that depends on the size
of the example's teacher features; so every channel is learned from some examples. Features that do not vary over the mini-batch, as with
one example, have no CKA, and then no channel is filled in. The share is computed from the mini-batch alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from kd_env.knowledge.hint import LinearProjector
from kd_env.knowledge.knowledge import Knowledge, Output
from kd_env.knowledge.projector import Projector
from kd_env.knowledge.vectors import norm, unit
from kd_env.types import ModelOutput

GOLDEN_RATIO = 0.6180339887498949
"""Its multiples, modulo 1, fill [0, 1) evenly however many there are."""


@dataclass(frozen=True)
class PriorSurrogate(Knowledge):
    """What the teacher's classifier reads, but for channels that it fills in (surrogate of DPK)."""

    compares: ClassVar[Output] = "features"
    projector: ClassVar[type[Projector]] = LinearProjector

    def target(self, teacher: ModelOutput) -> Tensor:
        """Return the teacher's features ``[B, D_k]``."""
        return teacher.features

    def loss(self, student: ModelOutput, target: Tensor) -> Tensor:
        """Return the mean squared distance from ``target [B, D_k]``, zero in the channels of the prior, ``[B]``."""
        learned = entry_shares(target) >= 1.0 - cka(student.features.detach(), target)  # [B, D]
        return torch.where(learned, (student.features - target).square(), 0.0).mean(1)


def cka(first: Tensor, second: Tensor) -> Tensor:
    """Linear CKA of ``[B, D]`` and ``[B, D']``: the cosine of their centred Gram matrices, in [0, 1]; 1 where one of them does not vary."""
    grams = [_gram(features) for features in (first, second)]  # [B * B]
    undefined = torch.minimum(*(norm(gram)[0] for gram in grams)) == 0.0
    return torch.where(undefined, 1.0, (unit(grams[0]) * unit(grams[1])).sum())


def entry_shares(teacher: Tensor) -> Tensor:
    """Return the share in [0, 1) above which each channel of ``[B, D]`` is in the prior, evenly spread over each row."""
    order = torch.arange(teacher.shape[1], device=teacher.device, dtype=teacher.dtype)
    return (order * GOLDEN_RATIO + teacher.abs().sum(1, keepdim=True)) % 1.0


def _gram(features: Tensor) -> Tensor:
    centred = unit((features - features.mean(0)).flatten()).view_as(features)  # of norm 1, so that its squares stay in range
    return (centred @ centred.T).flatten()
