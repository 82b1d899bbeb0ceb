"""``prior_surrogate``: features, part of which the teacher fills in; ours, after DPK (Qiu et al. 2022, arXiv 2206.06067).

``mean_d (u_d - t_d)^2`` with ``u_d = t_d`` in the channels of the prior and ``s_d``, the student's mapped feature, elsewhere. The share of
the prior is ``1 - CKA(s, t)``, linear CKA (Kornblith et al. 2019, arXiv 1905.00414) over the mini-batch: the further apart the two are,
the more is given, and the easier what is left. Neither share nor mask carries a gradient.

A surrogate: the paper stitches the two features, masked at random, and has a learned encoder and decoder rebuild the teacher's from them.
Its equations could not be opened; the share is as accounts of it say. There is no encoder and decoder: what the prior fills in is right,
and the loss asks for the rest. The mask is not random: channels are taken in a fixed order that is spread evenly (multiples of the golden
ratio), which begins for each example where the size of its teacher's features says, so that every channel is asked for by some examples.
Batch that do not vary over the mini-batch, as those of one example, have no CKA, and then nothing is filled in. The share is that of
the mini-batch alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from kd_env.knowledge.knowledge import Knowledge, Part
from kd_env.knowledge.layer import norm, unit
from kd_env.types import ModelOutput

GOLDEN = 0.6180339887498949
"""Multiples of it, modulo 1, fill [0, 1) evenly however many there are."""


@dataclass(frozen=True)
class PriorSurrogate(Knowledge):
    """What the teacher's classifier reads, less what it tells in advance (surrogate of DPK)."""

    needs: ClassVar[Part] = "features"
    projects: ClassVar[bool] = True

    def target(self, teacher: ModelOutput) -> Tensor:
        """The teacher's features ``[B, D_k]``."""
        return teacher.features

    def loss(self, student: ModelOutput, target: Tensor) -> Tensor:
        """Mean squared distance to ``target [B, D_k]``, no distance in the channels of the prior -> ``[B]``."""
        asked = turns(target) >= 1.0 - cka(student.features.detach(), target)  # [B, D]
        return torch.where(asked, (student.features - target).square(), 0.0).mean(1)


def cka(one: Tensor, other: Tensor) -> Tensor:
    """Linear CKA of ``[B, D]`` and ``[B, D']``: the cosine of their centred Gram matrices, in [0, 1]; 1 where one of them does not vary."""
    grams = [_gram(each) for each in (one, other)]  # [B * B]
    undefined = torch.minimum(*(norm(gram)[0] for gram in grams)) == 0.0
    return torch.where(undefined, 1.0, (unit(grams[0]) * unit(grams[1])).sum())


def turns(teacher: Tensor) -> Tensor:
    """When each channel of ``[B, D]`` joins the prior: the share in [0, 1) beyond which it does, spread evenly over each row."""
    order = torch.arange(teacher.shape[1], device=teacher.device, dtype=teacher.dtype)
    return (order * GOLDEN + teacher.abs().sum(1, keepdim=True)) % 1.0


def _gram(features: Tensor) -> Tensor:
    centred = unit((features - features.mean(0)).flatten()).view_as(features)  # of norm 1, so that its squares stay in range
    return (centred @ centred.T).flatten()
