"""Compute metrics of a classifier: predicted and true classes, int arrays ``[N]`` with N at least 1, give one number; higher is better.

``num_classes`` is C; only F1 reads it. A task names its metric: a name of :data:`METRICS`, or ``f1(class=NAME)``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from kd_env import spec
from kd_env.errors import InputError

Metric = Callable[[np.ndarray, np.ndarray, int | None], float]


def accuracy(predictions: np.ndarray, labels: np.ndarray, num_classes: int | None = None) -> float:
    """Return the share of right predictions, in [0, 1]."""
    return float((predictions == labels).mean())


def f1(predictions: np.ndarray, labels: np.ndarray, num_classes: int | None = None) -> float:
    """Return the F1 score of class 1 if C is 2, else macro F1: the mean over the classes that occur. In [0, 1]; 0 / 0 counts as 0.

    Args:
        num_classes: C; by default 2 unless a class above 1 occurs.
    """
    if num_classes is None:
        num_classes = max(int(predictions.max()), int(labels.max()), 1) + 1
    return f1_of_class(1, predictions, labels) if num_classes == 2 else f1_macro(predictions, labels)


def f1_macro(predictions: np.ndarray, labels: np.ndarray, num_classes: int | None = None) -> float:
    """Return the mean of the F1 scores of the classes that occur, for any number of classes, in [0, 1]."""
    return _mean_f1(predictions, labels, np.union1d(predictions, labels))


def f1_of_class(number: int, predictions: np.ndarray, labels: np.ndarray, num_classes: int | None = None) -> float:
    """Return the F1 score of the class of that number, in [0, 1]; 0 / 0 counts as 0."""
    return _mean_f1(predictions, labels, np.array([number]))


def mcc(predictions: np.ndarray, labels: np.ndarray, num_classes: int | None = None) -> float:
    """Return Matthews correlation coefficient for any number of classes, in [-1, 1]; 0 where predictions or labels are all equal.

    Gorodkin, 2004, "Comparing two K-category assignments by a K-category correlation coefficient".
    """
    size, right = len(labels), int((predictions == labels).sum())
    minlength = int(max(predictions.max(), labels.max())) + 1
    predicted, true = (np.bincount(classes, minlength=minlength) for classes in (predictions, labels))  # examples of each class
    spread = float(size**2 - (predicted**2).sum()) * float(size**2 - (true**2).sum())
    return float(right * size - (predicted * true).sum()) / math.sqrt(spread) if spread > 0 else 0.0


METRICS: dict[str, Metric] = {"accuracy": accuracy, "f1": f1, "f1_macro": f1_macro, "mcc": mcc}
"""The metrics by name."""


def find(key: str) -> Metric:
    """Return the metric that :func:`metric_key` describes."""
    name, options = spec.parse(key)
    return partial(f1_of_class, options["class"]) if options else METRICS[name]


def metric_key(text: str, class_names: Sequence[str], place: str) -> str:
    """Return a metric with its class as a number: ``f1(class=fraud)`` becomes ``f1(class=0)`` if ``fraud`` is class 0.

    Args:
        place: what has the metric, for messages.

    Raises:
        InputError: there is no such metric or no such class.
    """
    name, options = spec.parse(text)
    if name not in METRICS:
        raise spec.unknown(f"metric of {place}", name, METRICS)
    if not options:
        return name
    if name != "f1" or set(options) != {"class"}:
        raise InputError(f"metric {text!r} of {place}: only f1 takes an option, the class: f1(class={class_names[0]})")
    class_name = str(options["class"])
    matches = [number for number, known in enumerate(class_names) if known == class_name]
    matches = matches or [number for number, known in enumerate(class_names) if known.casefold() == class_name.casefold()]
    if len(matches) != 1:
        raise spec.unknown(f"class in the metric {text!r} of {place}", class_name, class_names)
    return f"f1(class={matches[0]})"


def metric_notes(text: str, class_names: Sequence[str], labels: np.ndarray) -> list[str]:
    """Return a note on the class whose F1 the metric ``f1`` is, or nothing for other metrics.

    Args:
        labels: int64 ``[N]``, to say how many examples are of that class.
    """
    if text != "f1":
        return []
    if len(class_names) > 2:
        return ["f1 is macro F1, the mean over the classes that occur; f1(class=NAME) is that of one class"]
    first, second = class_names
    return [
        f"f1 is that of class {second!r} ({(labels == 1).sum():,} of {len(labels):,} training examples), the second class; "
        f"metric=f1(class={first}) is that of {first!r}, f1_macro the mean of both"
    ]


def _mean_f1(predictions: np.ndarray, labels: np.ndarray, classes: np.ndarray) -> float:
    size = int(max(predictions.max(), labels.max(), classes.max())) + 1
    right, predicted, true = (np.bincount(rows, minlength=size)[classes] for rows in (labels[predictions == labels], predictions, labels))
    return float((2.0 * right / np.maximum(predicted + true, 1)).mean())
