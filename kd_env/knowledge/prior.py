"""``prior_surrogate``: the hint loss on part of the channels; the teacher fills in the rest; after DPK (Qiu et al. 2022, arXiv 2206.06067).

The loss is ``mean_d (u_d - t_d)^2``. ``t`` are the teacher's features. ``u_d`` is ``t_d`` in the channels of the prior, and the student's
mapped feature ``s_d`` in the other channels. The share of channels in the prior is ``1 - CKA(s, t)``, with linear CKA (Kornblith et al.
2019, arXiv 1905.00414) over the mini-batch: the less similar the features are, the more channels are filled in. Neither the share nor the
mask carries a gradient.

This is a surrogate of this project, since only descriptions of the paper's equations were available. The paper mixes the two features under
a random mask, and trains an encoder and a decoder that rebuild the teacher's features from the mixture. Deviations: there is no encoder and
no decoder, so the channels of the prior have no error. The mask is not random: channels enter the prior in a fixed, evenly spread order
(multiples of the golden ratio). The start of this order depends on the size of the example's teacher features, so every channel is learned
from some examples. If features do not vary over the mini-batch (for example, with one example), CKA is undefined and no channel is filled
in. The share is computed from the mini-batch alone.
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
"""Golden ratio minus 1. Its multiples modulo 1 fill [0, 1) evenly, for any number of them."""


@dataclass(frozen=True)
class PriorSurrogate(Knowledge):
    """Match the teacher's features, except in channels that the teacher fills in (surrogate of DPK)."""

    compares: ClassVar[Output] = "features"
    projector: ClassVar[type[Projector]] = LinearProjector

    def target(self, teacher: ModelOutput) -> Tensor:
        """Return the teacher's features ``[B, D_k]``."""
        return teacher.features

    def loss(self, student: ModelOutput, target: Tensor) -> Tensor:
        """Return the mean squared difference to ``target [B, D_k]``, ``[B]``; it is zero in the channels of the prior."""
        learned = entry_shares(target) >= 1.0 - cka(student.features.detach(), target)  # [B, D]
        return torch.where(learned, (student.features - target).square(), 0.0).mean(1)


def cka(first: Tensor, second: Tensor) -> Tensor:
    """Return the linear CKA of ``[B, D]`` and ``[B, D']``, in [0, 1]: the cosine of their centred Gram matrices; 1 if one is constant."""
    grams = [_gram(features) for features in (first, second)]  # [B * B]
    undefined = torch.minimum(*(norm(gram)[0] for gram in grams)) == 0.0
    return torch.where(undefined, 1.0, (unit(grams[0]) * unit(grams[1])).sum())


def entry_shares(teacher: Tensor) -> Tensor:
    """Return for each channel of ``[B, D]`` the share in [0, 1) above which it is in the prior, evenly spread over each row."""
    order = torch.arange(teacher.shape[1], device=teacher.device, dtype=teacher.dtype)
    return (order * GOLDEN_RATIO + teacher.abs().sum(1, keepdim=True)) % 1.0


def _gram(features: Tensor) -> Tensor:
    centred = unit((features - features.mean(0)).flatten()).view_as(features)  # norm 1, so that the squares stay in range
    return (centred @ centred.T).flatten()
