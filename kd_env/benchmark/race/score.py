"""Judge the students of a race. In: predicted classes on held-out examples. Out: scores, differences with standard errors, an order.

Students are judged on `validation`. Where that is small, they are judged on `reward` too, except those of policies that learn from its
labels. Reward examples are as new to these students as validation examples, and to the teachers, so twice the labels decide. A fold of
`train` would not be new: the teachers have learned its labels, and would pass on what they remember. Holding a fold back would also take
it from the student that is kept.

All differences are between students on the same examples, so their standard error is that of a paired comparison.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from kd_env.tasks import Task
from kd_env.tasks.metrics import find
from kd_env.tasks.splits import SMALL_VALIDATION

Predictions = Mapping[str, np.ndarray]
"""Predicted classes by split, int64 ``[S, N]`` for S students; ``reward`` is there only if it can judge these students."""

RESAMPLES = 400
"""Resamples of the examples for a standard error."""
NORMAL = 1.959964
"""97.5 % quantile of the normal distribution."""


class Difference(NamedTuple):
    """Mean score of one candidate minus another's on the examples that judge both, its standard error, and their number."""

    mean: float
    standard_error: float
    examples: int

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval."""
        return self.mean - NORMAL * self.standard_error, self.mean + NORMAL * self.standard_error


def judging_splits(task: Task, reads_reward_labels: bool) -> tuple[str, ...]:
    """Return the splits that judge a student."""
    return ("validation",) if reads_reward_labels or len(task.validation) >= SMALL_VALIDATION else ("validation", "reward")


def num_judging(task: Task, predictions: Predictions) -> int:
    """Return the number of examples that judge a candidate."""
    return sum(len(_labels(task, split)) for split in predictions)


def scores(task: Task, field: Sequence[Predictions]) -> list[float]:
    """Return the mean score of each candidate over its students.

    A candidate that `validation` alone judges gets the correction that its rivals get on average by adding `reward`, so that an easy or
    hard `reward` split favours nobody.
    """
    both = [one for one in field if len(one) > 1]
    shift = float(np.mean([_mean(task, one) - _mean(task, {"validation": one["validation"]}) for one in both])) if both else 0.0
    return [_mean(task, one) + (shift if len(one) == 1 else 0.0) for one in field]


def student_scores(task: Task, predictions: Predictions) -> list[float]:
    """Return the score of each student of one candidate, ``[S]``."""
    labels, classes = _joined(task, predictions, list(predictions))
    metric = find(task.metric_key)
    return [metric(student, labels, task.num_classes) for student in classes]


def difference(task: Task, one: Predictions, other: Predictions) -> Difference:
    """Return the difference in mean score of two candidates. The examples are resampled in pairs for its standard error.

    The standard error has a term of ``4 / N**2`` added to its square, as if four more examples had been judged differently, two each way
    (after Agresti & Min 2005). So two students that differ in one or two examples count as equal.
    """
    splits = [split for split in one if split in other]
    labels, classes = _joined(task, one, splits)
    _, others = _joined(task, other, splits)
    value = _resampled(task, labels, lambda rows: _score(task, labels, classes, rows) - _score(task, labels, others, rows))
    mean = _score(task, labels, classes, None) - _score(task, labels, others, None)
    return Difference(mean, math.sqrt(value.var(ddof=1) + 4 / len(labels) ** 2), len(labels))


def score_interval(task: Task, labels: np.ndarray, classes: np.ndarray) -> tuple[float, float, float]:
    """Return the score of one student, ``classes [N]``, with the 95 % interval that the choice of the examples leaves."""
    value = _resampled(task, labels, lambda rows: _score(task, labels, classes[None], rows))
    mean, half = _score(task, labels, classes[None], None), NORMAL * float(value.std(ddof=1))
    return mean, mean - half, mean + half


def order(task: Task, field: Sequence[Predictions]) -> list[int]:
    """Return the candidates in the order of their scores, the best first; of equal ones the first."""
    values = scores(task, field)
    return sorted(range(len(field)), key=lambda number: (-values[number], number))


def simplest_of_the_best(task: Task, field: Sequence[Predictions], ranks: Sequence[int]) -> int:
    """Return the simplest candidate whose score is within one standard error of the best score."""
    best = order(task, field)[0]
    near = [number for number in range(len(field)) if number == best or _near(difference(task, field[number], field[best]))]
    return min(near, key=lambda number: ranks[number])


def _near(behind: Difference) -> bool:
    return behind.mean >= -behind.standard_error


def _mean(task: Task, predictions: Predictions) -> float:
    return float(np.mean(student_scores(task, predictions)))


def _labels(task: Task, split: str) -> np.ndarray:
    labels: np.ndarray = (task.validation if split == "validation" else task.reward).labels
    return labels


def _joined(task: Task, predictions: Predictions, splits: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    labels = np.concatenate([_labels(task, split) for split in splits])
    return labels, np.concatenate([predictions[split] for split in splits], axis=1)


def _score(task: Task, labels: np.ndarray, classes: np.ndarray, rows: np.ndarray | None) -> float:
    """Return the mean score of students ``[S, N]``, on some rows."""
    if rows is not None:
        labels, classes = labels[rows], classes[:, rows]
    metric = find(task.metric_key)
    return float(np.mean([metric(student, labels, task.num_classes) for student in classes]))


def _resampled(task: Task, labels: np.ndarray, statistic: Callable[[np.ndarray], float]) -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.array([statistic(rng.integers(len(labels), size=len(labels))) for _ in range(RESAMPLES)])
