"""Say which student is used where the user names none, with its size beside the teachers'. In: a student and a pool. Out: a line."""

from __future__ import annotations

from torch import nn

from kd_env.teachers import NetworkTeacher, Pool
from kd_env.teachers.checkpoint import CheckpointTeacher


def default_student_line(name: str, network: nn.Module, pool: Pool) -> str:
    """Return a line with the name of the default student and the sizes of student and teachers."""
    networks = [teacher for teacher in pool.teachers if isinstance(teacher, NetworkTeacher | CheckpointTeacher)]
    sizes = [f"teacher {teacher.name} has {_size(teacher.network):,}" for teacher in networks]
    teachers = ", ".join(sizes) or "the sizes of the teachers are not known"
    return f"default student: {name} with {_size(network):,} parameters; {teachers}; --student selects another"


def _size(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())
