"""Metrics of a classifier. In: predicted and true classes, int arrays ``[N]``, N at least 1. Out: one number, higher is better.

``num_classes`` is C; only F1 asks for it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


def accuracy(predictions: np.ndarray, labels: np.ndarray, num_classes: int | None = None) -> float:
    """Share of right predictions, in [0, 1]."""
    return float((predictions == labels).mean())


def f1(predictions: np.ndarray, labels: np.ndarray, num_classes: int | None = None) -> float:
    """F1 of class 1 of two, or the mean F1 of the classes that occur, of more (macro F1); in [0, 1], 0 where a quotient is 0 / 0.

    Args:
        num_classes: C. Without it there are two unless a class above 1 occurs.
    """
    if num_classes is None:
        num_classes = max(int(predictions.max()), int(labels.max()), 1) + 1
    classes = np.array([1]) if num_classes == 2 else np.union1d(predictions, labels)
    said, true = predictions[:, None] == classes, labels[:, None] == classes  # [N, classes]
    return float((2.0 * (said & true).sum(0) / np.maximum(said.sum(0) + true.sum(0), 1)).mean())


def mcc(predictions: np.ndarray, labels: np.ndarray, num_classes: int | None = None) -> float:
    """Matthews correlation coefficient, of any number of classes, in [-1, 1]; 0 where predictions or labels are all equal.

    Gorodkin, 2004, "Comparing two K-category assignments by a K-category correlation coefficient".
    """
    classes = np.union1d(predictions, labels)
    said = (predictions[:, None] == classes).astype(np.float64)  # [N, classes]
    true = (labels[:, None] == classes).astype(np.float64)
    said, true = said - said.mean(0), true - true.mean(0)
    spread = (said**2).sum() * (true**2).sum()
    return float((said * true).sum() / np.sqrt(spread)) if spread > 0 else 0.0


METRICS: dict[str, Callable[[np.ndarray, np.ndarray, int | None], float]] = {"accuracy": accuracy, "f1": f1, "mcc": mcc}
