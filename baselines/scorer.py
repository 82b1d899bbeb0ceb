"""A scorer scores each teacher for an instance, by a small network that all teachers share, plus a bias and a slope per teacher.

In: the teachers' logits. Out: nine columns per teacher, which say how sure it is and how far the teachers agree, and a score. The number of
columns is the same for all numbers of classes C and of teachers K.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

MIN_PROBABILITY = 1e-6
NUM_COLUMNS = 9


def scorer_columns(teacher_logits: Tensor) -> Tensor:
    """Return the columns of teachers with ``teacher_logits [n, K, C]``: ``[n, K, 9]``, float32.

    They are, with a_k the most likely class of teacher k:

    1. the log-odds of its probability of a_k;
    2. its entropy / ln C;
    3. its margin to the second class;
    4. the share of teachers whose most likely class is a_k;
    5. the log-odds of a_k under the mean of all teachers;
    6. the log-odds of a_k under the mean of the other teachers;
    7. column 1 minus the largest of all teachers;
    8. whether column 7 is 0;
    9. column 2 minus the lowest of all teachers.

    Probabilities are clamped to [1e-6, 1 - 1e-6] before log-odds. With one teacher, column 6 is the log-odds of 1e-6.
    """
    probabilities = teacher_logits.double().softmax(2)  # [n, K, C]
    num_teachers, num_classes = probabilities.shape[1:]
    largest, predicted = probabilities.max(2)  # [n, K]
    margin = largest - probabilities.topk(2).values[:, :, 1]
    entropy = torch.special.entr(probabilities).sum(2) / math.log(num_classes)
    votes = (predicted[:, :, None] == predicted[:, None]).double().mean(2)
    by_all = probabilities.mean(1).gather(1, predicted)
    by_others = (num_teachers * by_all - largest) / max(num_teachers - 1, 1)
    confidence = _log_odds(largest)
    behind = confidence - confidence.amax(1, keepdim=True)
    columns = [confidence, entropy, margin, votes, _log_odds(by_all), _log_odds(by_others), behind]
    columns += [(behind == 0.0).double(), entropy - entropy.amin(1, keepdim=True)]
    return torch.stack(columns, 2).float()


def _log_odds(probability: Tensor) -> Tensor:
    return probability.clamp(MIN_PROBABILITY, 1.0 - MIN_PROBABILITY).logit()


class Scorer(nn.Module):
    """A linear function of the columns, plus 16 tanh units, plus a bias and a slope of column 1 per teacher. All scores are 0 at first."""

    mean: Tensor
    scale: Tensor

    def __init__(self, num_teachers: int, hidden: int = 16) -> None:
        """Make the layers. Columns are standardised by ``mean`` and ``scale``, which start at 0 and 1."""
        super().__init__()
        self.register_buffer("mean", torch.zeros(NUM_COLUMNS))
        self.register_buffer("scale", torch.ones(NUM_COLUMNS))
        self.linear = nn.Linear(NUM_COLUMNS, 1, bias=False)
        self.hidden = nn.Linear(NUM_COLUMNS, hidden)
        self.output = nn.Linear(hidden, 1, bias=False)
        self.bias = nn.Parameter(torch.zeros(num_teachers))
        self.slope = nn.Parameter(torch.zeros(num_teachers))
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.output.weight)

    def standardise(self, columns: Tensor) -> None:
        """Set mean and scale from ``columns [n, K, 9]``."""
        self.mean.copy_(columns.mean((0, 1)))
        self.scale.copy_(columns.std((0, 1), correction=0) + 1e-3)

    def forward(self, columns: Tensor) -> Tensor:
        """Return scores, ``[n, K, 9]`` -> ``[n, K]``."""
        columns = (columns - self.mean) / self.scale
        shared = self.linear(columns) + self.output(self.hidden(columns).tanh())  # [n, K, 1]
        scores: Tensor = shared.squeeze(2) + self.bias + self.slope * columns[:, :, 0]
        return scores
