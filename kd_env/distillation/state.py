"""Hold state with one value per student. Each array is declared once; reset, copy, save and load use the declaration.

A subclass declares its arrays with :func:`per_student`::

    @dataclass
    class RunState(PerStudent):
        update: np.ndarray = per_student(np.int64)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import DTypeLike
from torch import Tensor


def per_student(dtype: DTypeLike, initial: Any = 0) -> Any:
    """Declare an array of shape ``[S]`` with initial values ``initial``."""
    return field(metadata={"dtype": np.dtype(dtype), "initial": initial})


@dataclass
class PerStudent:
    """Base class of states: arrays of shape ``[S]``, one value per student."""

    @classmethod
    def start(cls, num_students: int) -> Self:
        """Return the initial state of S students."""
        return cls(**{f.name: np.full(num_students, f.metadata["initial"], f.metadata["dtype"]) for f in fields(cls)})

    def reset(self, student: int) -> None:
        """Set the values of one student to their initial ones."""
        for f in fields(self):
            getattr(self, f.name)[student] = f.metadata["initial"]

    def of_student(self, student: int) -> Self:
        """Return a copy of the state of one student, with arrays of shape ``[1]``."""
        return type(self)(**{f.name: getattr(self, f.name)[student : student + 1].copy() for f in fields(self)})

    def tensors(self) -> dict[str, Tensor]:
        """Return a copy of all arrays as tensors by name."""
        return {f.name: torch.from_numpy(getattr(self, f.name).copy()) for f in fields(self)}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Self:
        """Return the state that :meth:`tensors` returned."""
        return cls(**{f.name: tensors[f.name].numpy().copy() for f in fields(cls)})


@dataclass
class RunState(PerStudent):
    """State of a run, one value per student.

    Attributes:
        seed: seed of the student's initial weights and of its order of examples.
        update: number of updates so far.
        diverged: whether the loss is no longer finite.
        forward_examples: number of examples that passed through the student.
    """

    seed: np.ndarray = per_student(np.int64)
    update: np.ndarray = per_student(np.int64)
    diverged: np.ndarray = per_student(np.bool_)
    forward_examples: np.ndarray = per_student(np.int64)
