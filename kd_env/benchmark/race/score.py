"""Score the students of a race. In: predictions on held-out examples. Out: scores, losses, differences with standard errors, a ranking.

Students are scored on `validation`. If it is small, they are also scored on `reward`, except with policies or settings that use its labels,
and where the user limits these. These students and the teachers have not learned from reward examples. Folds of `train` are not used: the
teachers have learned their labels, and each fold would be missing from the data of the final student.

Candidates are compared on the same examples, so the standard error of a difference is that of a paired comparison. Early in a race, scores
of some hundred examples are equal or differ by noise, so candidates near the best score are ranked by their loss.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import logsumexp
from scipy.stats import binomtest

from kd_env.distillation.calibration import fit_temperatures
from kd_env.tasks import Task
from kd_env.tasks.metrics import find
from kd_env.tasks.splits import SMALL_VALIDATION

Predictions = Mapping[str, np.ndarray]
"""Predicted classes by split, int64 ``[S, N]`` for S students; ``reward`` only if these students are scored on it."""

Losses = Mapping[str, np.ndarray]
"""Losses by split, see :func:`held_out_losses`, ``[S]``."""

RESAMPLES = 400
"""Number of bootstrap samples of the examples for a standard error."""
NORMAL_QUANTILE = 1.959964
"""97.5 % quantile of the normal distribution."""
DECISIVE_LEAD = 1.644854
"""Lead, in standard errors, by which a candidate beats a simpler one in the last choice: the 95 % quantile of the normal distribution."""


class Difference(NamedTuple):
    """The difference in mean score of two candidates on the examples that both are scored on.

    Attributes:
        mean: the difference.
        standard_error: its standard error.
        examples: number of examples.
    """

    mean: float
    standard_error: float
    examples: int

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval."""
        return self.mean - NORMAL_QUANTILE * self.standard_error, self.mean + NORMAL_QUANTILE * self.standard_error


def scoring_splits(task: Task, validation_alone: bool) -> tuple[str, ...]:
    """Return the splits that a candidate is scored on.

    Args:
        task: the task.
        validation_alone: whether the candidate must not be scored on the reward split.
    """
    return ("validation",) if validation_alone or len(task.validation) >= SMALL_VALIDATION else ("validation", "reward")


def num_scored(task: Task, predictions: Predictions) -> int:
    """Return the number of examples that a candidate is scored on."""
    return sum(len(_labels(task, split)) for split in predictions)


def constant_score(task: Task, predictions: Predictions) -> float:
    """Return the best score of one class for all examples that a candidate is scored on."""
    labels, _ = _joined(task, predictions, list(predictions))
    metric = find(task.metric_key)
    return max(metric(np.full_like(labels, answer), labels, task.num_classes) for answer in range(task.num_classes))


def scores(task: Task, candidates: Sequence[Predictions]) -> list[float]:
    """Return the mean score of each candidate over its students.

    If some candidates are scored on both splits and others on `validation` alone, the scores of the others are corrected: they get the mean
    change of a score when `reward` is added, so that a `reward` split that is easier or harder than `validation` favours neither kind.
    """
    return _corrected(candidates, lambda predictions: _mean_score(task, predictions))


def mean_losses(task: Task, candidates: Sequence[Losses]) -> list[float]:
    """Return the mean loss of each candidate over its students and examples, corrected as :func:`scores` are."""

    def mean(losses: Losses) -> float:
        return float(np.average([losses[split].mean() for split in losses], weights=[len(_labels(task, split)) for split in losses]))

    return _corrected(candidates, mean)


def held_out_losses(task: Task, split: str, logits: np.ndarray) -> np.ndarray:
    """Return the cross-entropy of each student after temperature scaling, ``[S]``.

    The logits are divided by a temperature that is fitted on the same examples. So students that learn with other values of ``kd_weight``
    or ``temperature`` are compared by what they know, not by how certain they are.

    Args:
        task: the task.
        split: the split.
        logits: logits of the students, ``[S, N, C]``.
    """
    labels = _labels(task, split)

    def loss(student: np.ndarray) -> float:
        scaled = student.astype(np.float64) / fit_temperatures(student[:, None], labels)
        return float((logsumexp(scaled, axis=1) - scaled[np.arange(len(labels)), labels]).mean())

    return np.array([loss(student) for student in logits])


def student_scores(task: Task, predictions: Predictions) -> list[float]:
    """Return the score of each student of one candidate, ``[S]``."""
    labels, classes = _joined(task, predictions, list(predictions))  # [N], [S, N]
    metric = find(task.metric_key)
    return [metric(student, labels, task.num_classes) for student in classes]


def difference(task: Task, predictions: Predictions, baseline: Predictions) -> Difference:
    """Return the mean score of one candidate minus that of another, with a paired bootstrap standard error.

    ``4 / N**2`` is added to the variance, as if the two differed in four more examples, two in favour of each (after Agresti & Min 2005).
    So two candidates that differ in one or two examples count as equal.
    """
    splits = [split for split in predictions if split in baseline]
    labels, classes = _joined(task, predictions, splits)
    _, baseline_classes = _joined(task, baseline, splits)

    metric = _metric_of(task)

    def gain(rows: np.ndarray | None) -> float:
        return _score(metric, labels, classes, rows) - _score(metric, labels, baseline_classes, rows)

    variance = _bootstrap(len(labels), gain).var(ddof=1) + 4 / len(labels) ** 2
    return Difference(gain(None), math.sqrt(variance), len(labels))


def score_interval(task: Task, labels: np.ndarray, classes: np.ndarray) -> tuple[float, float, float]:
    """Return the score of one student, ``classes [N]``, and the bounds of its 95 % interval over the examples.

    For accuracy it is Wilson's interval, which has a width also if all answers are right; for other metrics a bootstrap interval.
    """
    metric = _metric_of(task)
    if task.metric_key == "accuracy":
        right = int((classes == labels).sum())
        low, high = binomtest(right, len(labels)).proportion_ci(method="wilson")
        return right / len(labels), float(low), float(high)
    samples = _bootstrap(len(labels), lambda rows: _score(metric, labels, classes[None], rows))
    low, high = np.quantile(samples, [0.025, 0.975])  # of scores, so the bounds are possible scores
    return _score(metric, labels, classes[None]), float(low), float(high)


def rank(task: Task, candidates: Sequence[Predictions], losses: Sequence[float]) -> list[int]:
    """Return the indices of the candidates, the best first.

    Candidates within one standard error of the best score come first, ordered by loss; the others follow, ordered by score.

    Args:
        task: the task.
        candidates: predictions of each candidate.
        losses: loss of each candidate.
    """
    candidate_scores, near_best = scores(task, candidates), _near_best(task, candidates, 1.0)
    return sorted(range(len(candidates)), key=lambda index: (0, losses[index]) if index in near_best else (1, -candidate_scores[index]))


def simplest_unbeaten(task: Task, candidates: Sequence[Predictions], ranks: Sequence[int]) -> int:
    """Return the index of the simplest candidate that the one with the best score does not lead by :data:`DECISIVE_LEAD` standard errors.

    Args:
        task: the task.
        candidates: predictions of each candidate.
        ranks: position of each candidate in the order of simplicity, 0 for the simplest.
    """
    return min(_near_best(task, candidates, DECISIVE_LEAD), key=lambda index: ranks[index])


def _near_best(task: Task, candidates: Sequence[Predictions], standard_errors: float) -> list[int]:
    """Return the indices of the candidates whose scores are within some standard errors of the best score."""
    best = int(np.argmax(scores(task, candidates)))
    gaps = [difference(task, predictions, candidates[best]) for predictions in candidates]
    return [index for index, gap in enumerate(gaps) if index == best or gap.mean >= -standard_errors * gap.standard_error]


def _corrected(candidates: Sequence[Mapping[str, np.ndarray]], statistic: Callable[[Mapping[str, np.ndarray]], float]) -> list[float]:
    """Return a statistic of each candidate, corrected for those without `reward`, see :func:`scores`."""
    changes = [statistic(by_split) - statistic({"validation": by_split["validation"]}) for by_split in candidates if len(by_split) > 1]
    correction = float(np.mean(changes)) if changes else 0.0
    return [statistic(by_split) + (correction if len(by_split) == 1 else 0.0) for by_split in candidates]


def _mean_score(task: Task, predictions: Predictions) -> float:
    return float(np.mean(student_scores(task, predictions)))


def _labels(task: Task, split: str) -> np.ndarray:
    labels: np.ndarray = (task.validation if split == "validation" else task.reward).labels
    return labels


def _joined(task: Task, predictions: Predictions, splits: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return the labels ``[N]`` and the predicted classes ``[S, N]`` of some splits together."""
    labels = np.concatenate([_labels(task, split) for split in splits])
    return labels, np.concatenate([predictions[split] for split in splits], axis=1)


def _metric_of(task: Task) -> Callable[[np.ndarray, np.ndarray], float]:
    """Return the metric of predictions and labels, looked up once: a bootstrap asks for it thousands of times."""
    metric, num_classes = find(task.metric_key), task.num_classes
    return lambda predictions, labels: metric(predictions, labels, num_classes)


def _score(
    metric: Callable[[np.ndarray, np.ndarray], float], labels: np.ndarray, classes: np.ndarray, rows: np.ndarray | None = None
) -> float:
    """Return the mean score of students, ``classes [S, N]``, on some rows or, with ``None``, on all."""
    if rows is not None:
        labels, classes = labels[rows], classes[:, rows]
    return float(np.mean([metric(student, labels) for student in classes]))


def _bootstrap(size: int, statistic: Callable[[np.ndarray], float]) -> np.ndarray:
    """Return a statistic of rows for :data:`RESAMPLES` bootstrap samples of ``size`` examples."""
    rng = np.random.default_rng(0)
    return np.array([statistic(rng.integers(size, size=size)) for _ in range(RESAMPLES)])
