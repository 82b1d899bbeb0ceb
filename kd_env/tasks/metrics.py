"""Metrics of a classifier: predicted and true classes, int arrays ``[N]`` with N at least 1, give one number; higher is better.

``num_classes`` is C; only F1 reads it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


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
    classes = np.array([1]) if num_classes == 2 else np.union1d(predictions, labels)
    predicted, true = predictions[:, None] == classes, labels[:, None] == classes  # [N, classes]
    return float((2.0 * (predicted & true).sum(0) / np.maximum(predicted.sum(0) + true.sum(0), 1)).mean())


def mcc(predictions: np.ndarray, labels: np.ndarray, num_classes: int | None = None) -> float:
    """Return Matthews correlation coefficient for any number of classes, in [-1, 1]; 0 where predictions or labels are all equal.

    Gorodkin, 2004, "Comparing two K-category assignments by a K-category correlation coefficient".
    """
    classes = np.union1d(predictions, labels)
    predicted = (predictions[:, None] == classes).astype(np.float64)  # [N, classes]
    true = (labels[:, None] == classes).astype(np.float64)
    predicted, true = predicted - predicted.mean(0), true - true.mean(0)
    spread = (predicted**2).sum() * (true**2).sum()
    return float((predicted * true).sum() / np.sqrt(spread)) if spread > 0 else 0.0


METRICS: dict[str, Callable[[np.ndarray, np.ndarray, int | None], float]] = {"accuracy": accuracy, "f1": f1, "mcc": mcc}
"""The metrics by name."""
