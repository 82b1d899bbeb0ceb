"""Use an existing classifier of a pool file without fine-tuning: a folder that names it and maps its classes to the task's."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from kd_env.errors import InputError
from kd_env.tasks import Task
from kd_env.teachers.checkpoint import CheckpointTeacher

REFERENCE_FILE = "teacher.json"
"""In a teacher's folder: the checkpoint that it is, and the mapping of its classes."""


@dataclass(frozen=True)
class ExistingTeacher:
    """A table of a pool file that has ``classes``.

    Attributes:
        model: folder or hub id of a classifier.
        classes: pairs of the checkpoint's name and the task's name of a class, see :mod:`kd_env.teachers.classes`.
    """

    model: str
    classes: tuple[tuple[str, str], ...]

    def filled(self, task: Task) -> ExistingTeacher:
        """Return the teacher, whose model is an absolute path if it is a folder.

        Raises:
            InputError: the checkpoint cannot be used, or its classes do not match those of ``task``.
        """
        CheckpointTeacher(self.model, task, classes=dict(self.classes))
        path = Path(self.model).expanduser()
        return ExistingTeacher(str(path.resolve()) if path.is_dir() else self.model, self.classes)

    def write(self, folder: Path, task: Task) -> None:
        """Write the folder; one that says the same is left as it is.

        Raises:
            InputError: the folder holds something else.
        """
        content = json.dumps({"model": self.filled(task).model, "classes": dict(self.classes)}, indent=1)
        path = folder / REFERENCE_FILE
        if folder.exists() and (not path.is_file() or path.read_text() != content):
            raise InputError(f"{folder} holds another teacher; name another folder or delete it")
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


def open_reference(folder: Path, task: Task) -> CheckpointTeacher:
    """Return the teacher of a folder that :meth:`ExistingTeacher.write` wrote.

    Raises:
        InputError: the file or the checkpoint cannot be used.
    """
    path = folder / REFERENCE_FILE
    try:
        content = json.loads(path.read_text())
        model, classes = str(content["model"]), dict(content["classes"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise InputError(f"{path}: it does not name a model and its classes; run kd-env teach --pool again") from None
    return CheckpointTeacher(model, task, folder.resolve().name, classes)
