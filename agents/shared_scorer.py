"""A scorer of teachers that can be moved to another pool: no parameter depends on the number of teachers or of classes.

In: the teachers' logits. Out: a score per teacher. The columns are those of :mod:`baselines.scorer`, and others that compare a teacher's
outputs with its mean outputs on unlabelled examples. These means are computed for each pool, and are not learned.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from baselines.scorer import NUM_COLUMNS as SCORER_COLUMNS
from baselines.scorer import scorer_columns

NUM_COLUMNS = SCORER_COLUMNS + 4
MIN_DEVIATION = 1e-3
BOUND = 5.0


class PoolColumns:
    """Computes the columns of a pool, standardised by what is usual in it."""

    def __init__(self, teacher_logits: Tensor) -> None:
        """Read what is usual from outputs on unlabelled examples, ``teacher_logits [n, K, C]``."""
        entropy, self._agreement = _entropy(teacher_logits), _votes(teacher_logits).mean(0)  # [n, K], [K]
        self._mean, self._deviation = entropy.mean(0), entropy.std(0, correction=0).clamp_min(MIN_DEVIATION)  # [K]
        columns = self._raw(teacher_logits)
        self._center, self._scale = columns.mean((0, 1)), columns.std((0, 1), correction=0).clamp_min(MIN_DEVIATION)

    def __call__(self, teacher_logits: Tensor) -> Tensor:
        """Return the columns of ``teacher_logits [n, K, C]``: ``[n, K, 13]``, float32, in [-5, 5].

        The first nine are those of :func:`baselines.scorer.scorer_columns`. Then come, with z_k the teacher's entropy less its usual
        entropy, in units of its usual deviation:

        10. z_k;
        11. z_k less the lowest z of all teachers;
        12. the teacher's mean share of votes on the unlabelled examples;
        13. column 12 less the largest of all teachers.
        """
        columns: Tensor = (self._raw(teacher_logits) - self._center) / self._scale
        return columns.clamp(-BOUND, BOUND)

    def _raw(self, teacher_logits: Tensor) -> Tensor:
        unusual = (_entropy(teacher_logits) - self._mean) / self._deviation  # [n, K]
        agreement = self._agreement.expand_as(unusual)
        more = [unusual, unusual - unusual.amin(1, keepdim=True), agreement, agreement - agreement.amax(1, keepdim=True)]
        return torch.cat([scorer_columns(teacher_logits), torch.stack(more, 2).float()], 2)


class SharedScorer(nn.Module):
    """A linear function of the columns plus 32 tanh units, the same for all teachers. All scores are 0 at first."""

    def __init__(self, hidden: int = 32) -> None:
        """Make the layers."""
        super().__init__()
        self.linear = nn.Linear(NUM_COLUMNS, 1, bias=False)
        self.hidden = nn.Linear(NUM_COLUMNS, hidden)
        self.output = nn.Linear(hidden, 1, bias=False)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.output.weight)

    def forward(self, columns: Tensor) -> Tensor:
        """Return log-weights of the teachers, ``[n, K, 13]`` -> ``[n, K]``."""
        scores = self.linear(columns) + self.output(self.hidden(columns).tanh())  # [n, K, 1]
        log_weights: Tensor = scores.squeeze(2).log_softmax(1)
        return log_weights


def _entropy(teacher_logits: Tensor) -> Tensor:
    """Return the entropy of each teacher over ln C, ``[n, K]``."""
    probabilities = teacher_logits.double().softmax(2)
    entropy: Tensor = torch.special.entr(probabilities).sum(2) / math.log(teacher_logits.shape[2])
    return entropy


def _votes(teacher_logits: Tensor) -> Tensor:
    """Return the share of the teachers that give the same answer, ``[n, K]``."""
    predicted = teacher_logits.argmax(2)
    votes: Tensor = (predicted[:, :, None] == predicted[:, None]).double().mean(2)
    return votes
