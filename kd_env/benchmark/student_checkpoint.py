"""Save the student of a finished run. In: the run. Out: a checkpoint, with the tokenizer or the image preprocessing."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from torch import nn

from kd_env.distillation import Distillation
from kd_env.errors import InputError
from kd_env.models.encode import ImageReader, TextReader
from kd_env.models.saving import Saveable, reader_to_save, save
from kd_env.models.wrapper import unwrap
from kd_env.tasks import Task


def save_student(folder: Path, run: Distillation) -> None:
    """Write the student into ``folder``, with float32 weights. Its network must be one that :func:`require_saveable` accepts."""
    network = copy.deepcopy(student_network(run))
    assert isinstance(network, Saveable)
    task, read = run.data.task, run.data.read
    checkpoint_reader = read if isinstance(read, TextReader | ImageReader) else reader_to_save(task, task.max_length)
    save(folder, network.float().cpu().eval(), task, checkpoint_reader)


def student_network(run: Distillation) -> Any:
    """Return the student's network without projectors and auxiliary module."""
    return unwrap(run.student.network)


def require_saveable(network: nn.Module, student: str, task: Task, otherwise: str = "") -> None:
    """Check that a student can be saved as a checkpoint: it is a Transformers model or a convolutional network.

    Args:
        network: the student's network.
        student: its name.
        task: the task.
        otherwise: what the user can do instead of naming another student.

    Raises:
        InputError: it is neither.
    """
    if not isinstance(network, Saveable):
        alternative = "tiny-vit" if task.kind == "image" else "tiny-bert"
        raise InputError(
            f"student {student!r} is not a Transformers model and cannot be saved as one; "
            f"use --student {alternative}, or a checkpoint{otherwise}"
        )
