"""Evaluate students. In: logits and labels. Out: mean cross-entropy and metric of each student."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from kd_env.tasks.metrics import find


def loss_and_metric(logits: Tensor, labels: Tensor, num_students: int, metric: str = "accuracy") -> tuple[np.ndarray, np.ndarray]:
    """Return mean cross-entropy and metric, each ``[S]``, one value per student.

    Args:
        logits: logits of the students, ``[S * N, C]``, student 0 first.
        labels: labels, ``[S * N]``, or ``[N]`` if all students have the same examples.
        num_students: number of students S.
        metric: a metric as :func:`kd_env.tasks.metrics.find` reads it.
    """
    if len(labels) < len(logits):
        labels = labels.repeat(num_students)
    if num_students == 1:
        loss = cross_entropy(logits, labels)[None]
    else:
        loss = cross_entropy(logits, labels, reduction="none").view(num_students, -1).mean(1)
    if metric != "accuracy":
        predicted, true = (classes.view(num_students, -1).cpu().numpy() for classes in (logits.argmax(1), labels))
        metrics = [find(metric)(*pair, logits.shape[1]) for pair in zip(predicted, true, strict=True)]
        return loss.double().cpu().numpy(), np.array(metrics)
    accuracy = (logits.argmax(1) == labels).to(logits.dtype).view(num_students, -1).mean(1)
    values = torch.stack([loss, accuracy]).double().cpu().numpy()  # one copy off the device
    return values[0], values[1]
