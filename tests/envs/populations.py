"""Environments of several students, and their comparison with environments of one."""

import numpy as np
import torch
from playing import slots

STUDENTS, SIZE = 3, 2
FLOAT64 = {"precision": "float64", "reward_labels": 40, "kd_weight": 0.6}


def population(name, granularity="instance", **keywords):
    if granularity == "batch":
        return slots(STUDENTS, name, num_students=STUDENTS, batch_size=SIZE, granularity="batch", **keywords)
    return slots(STUDENTS * SIZE, name, num_students=STUDENTS, **keywords)


def alone(name, granularity="instance", **keywords):
    return slots(SIZE if granularity == "instance" else 1, name, batch_size=SIZE, granularity=granularity, **keywords)


def close(value, other, tolerance=1e-6):
    """Equal keys; equal numbers but for rounding, and for axes of one."""
    if isinstance(value, dict):
        return value.keys() == other.keys() and all(close(value[name], other[name], tolerance) for name in value)
    value, other = (np.asarray(each, dtype=np.float64).ravel() for each in (value, other))
    return value.size == other.size and np.allclose(value, other, rtol=tolerance, atol=tolerance, equal_nan=True)


def of_student(value, student):
    """The part of a step's return, or of an info, that is about one student."""
    if isinstance(value, dict):
        return {name: of_student(inner, student) for name, inner in value.items()}
    return value.reshape(STUDENTS, -1, *value.shape[1:])[student]


def broken(run, student):
    """Put infinity in place of a student's parameters; its outputs are NaN from now on."""
    with torch.no_grad():
        for parameter in run.student.parameters:
            (parameter[student] if run.num_students > 1 else parameter).fill_(torch.inf)
    run.forget_batch()
