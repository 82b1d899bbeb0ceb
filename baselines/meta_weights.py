"""MMKD's two nets that weigh teachers (Zhang et al. 2023, arXiv 2306.06634): one for responses, one for hints.

In: outputs of teachers and student for a mini-batch. Out: weights ``[B, K]``, rows on the simplex.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize


class MetaWeights(nn.Module):
    """Both nets, drawn from torch's global generator."""

    def __init__(self, num_teachers: int, num_classes: int, batch_size: int, gram_width: int = 0, cosine: bool = True) -> None:
        """Make them for K teachers, C classes and mini-batches of B; ``gram_width`` and ``cosine`` as in :func:`gram_rows`."""
        super().__init__()
        self.gram_width, self.cosine = gram_width, cosine
        self.of_logits = _net((num_teachers + 1) * num_classes, num_teachers)
        self.of_features = _net((num_teachers + 1) * (gram_width or batch_size), num_teachers)

    def response(self, teacher_logits: Tensor, student_logits: Tensor) -> Tensor:
        """Return the weights of responses, ``[B, K, C]``, ``[B, C]`` -> ``[B, K]``; no gradient reaches the student."""
        weights: Tensor = self.of_logits(torch.cat([teacher_logits.flatten(1), student_logits.detach()], 1)).softmax(1)
        return weights

    def hint(self, teacher_features: Sequence[Tensor], student_features: Tensor) -> Tensor:
        """Return the weights of hints, K x ``[B, D_k, ...]``, ``[B, D, ...]`` -> ``[B, K]``; no gradient reaches the student."""
        rows = [gram_rows(features, self.gram_width, self.cosine) for features in (*teacher_features, student_features.detach())]
        weights: Tensor = self.of_features(torch.cat(rows, 1)).softmax(1)
        return weights


def gram_rows(features: Tensor, width: int = 0, cosine: bool = True) -> Tensor:
    """Return how much each example resembles the B of its mini-batch: rows of the Gram matrix, ``[B, D, ...]`` -> ``[B, B]``.

    A feature map counts as one vector, as in the released code.

    Args:
        width: if above 0, this many evenly spaced quantiles of each row instead, ``[B, width]``. They depend neither on the size of the
            mini-batch nor on the order of its examples.
        cosine: whether features are scaled to length 1, so that entries lie in [-1, 1].
    """
    vectors = features.flatten(1)
    compared = normalize(vectors, dim=1) if cosine else vectors
    gram = compared @ compared.T
    if not width:
        return gram
    return torch.quantile(gram, torch.linspace(0.0, 1.0, width).to(gram), dim=1).T.contiguous()


def _net(num_inputs: int, num_teachers: int) -> nn.Module:
    return nn.Sequential(nn.Linear(num_inputs, num_inputs // 2), nn.ReLU(), nn.Linear(num_inputs // 2, num_teachers))
