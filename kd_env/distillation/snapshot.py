"""Convert the state of a run to tensors and back, for snapshots and forks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from kd_env.distillation.state import RunState
from kd_env.serialization import add_prefix, with_prefix
from kd_env.student.protocol import Students


def tensors_of(students: Students, state: RunState, dropout: Sequence[Tensor]) -> dict[str, Tensor]:
    """Return the students' weights and optimizers, the state per student and the states of the dropout generator, by name."""
    return {
        **add_prefix(students.state(), "student"),
        **add_prefix(state.tensors(), "state"),
        **{f"dropout.{index}": tensor for index, tensor in enumerate(dropout)},
    }


def load(students: Students, tensors: Mapping[str, Tensor]) -> tuple[RunState, list[Tensor]]:
    """Load the result of :func:`tensors_of` into ``students``; return the state per student and the states of the dropout generator."""
    students.load_state(with_prefix(tensors, "student"))
    dropout = with_prefix(tensors, "dropout")
    return RunState.from_tensors(with_prefix(tensors, "state")), [dropout[str(index)] for index in range(len(dropout))]
