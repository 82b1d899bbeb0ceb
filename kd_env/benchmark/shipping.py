"""Make a finished student ready to ship: trim its vocabulary, write other formats, upload it. In: its folder. Out: lines for the user.

Each step is left out if it is done already, so that the same command continues after a stop, or adds a step to a finished student.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kd_env.benchmark import formats
from kd_env.benchmark.push import push, require_repository, upload_problem
from kd_env.benchmark.trimmed import FILE as TRIMMED
from kd_env.benchmark.trimmed import require_trimmable_student, trim_vocabulary
from kd_env.errors import InputError
from kd_env.models.networks import bit_widths
from kd_env.tasks import Task


@dataclass(frozen=True)
class Shipping:
    """What is done to a finished student.

    Attributes:
        trim_vocabulary: whether to remove tokens that the texts of the task do not contain.
        export: ``onnx``, or empty.
        dtype: number format of the weights; empty: float32, or the format that a finished student has.
        push: repository of the Hub, or empty.
    """

    trim_vocabulary: bool = False
    export: str = ""
    dtype: str = ""
    push: str = ""

    def check(self) -> str:
        """Check the options before anything is taught; return a line for the user, which may be empty.

        Raises:
            InputError: an option cannot be used.
        """
        formats.check(self.export, self.dtype)
        if self.push:
            require_repository(self.push)
            if reason := upload_problem():
                return f"--push: {reason} before the student is finished"
        return ""

    def check_student(self, student: str, task: Task) -> None:
        """Check a student before it is taught.

        Raises:
            InputError: its vocabulary cannot be trimmed, or it is quantised and ``dtype`` would round it again.
        """
        if self.dtype in formats.ROUNDED and bit_widths(student) is not None:
            raise formats.rounds_again(f"student {student!r}", self.dtype)
        if self.trim_vocabulary:
            require_trimmable_student(student, task)

    def run(self, folder: Path, task: Task) -> Iterator[str]:
        """Do all steps, and yield a line about each. Call :func:`~kd_env.benchmark.trimmed.recover` before the folder is looked at.

        Raises:
            InputError: a step fails. The folder holds the student with the steps before.
        """
        if self.trim_vocabulary:
            earlier = _formats(folder)
            if set(earlier) & {"float16", "bfloat16"} and not (folder / TRIMMED).exists():
                raise InputError(f"--trim-vocabulary: the weights in {folder} are rounded already; name a new --out with both options")
            yield trim_vocabulary(folder, task)
            for name in earlier:
                if name not in _formats(folder) and name != "float32":  # trimming deletes formats that were written before
                    formats.write_formats(folder, task, *(("onnx", "float32") if name == "onnx" else ("", name)))
        yield from formats.write_formats(folder, task, self.export, self.dtype)
        if self.push:
            yield f"uploaded to {push(folder, self.push)}; a new repository is private, which its settings on the Hub can change"


def _formats(folder: Path) -> list[str]:
    try:
        return list(json.loads((folder / formats.FILE).read_text()))
    except OSError:
        return []
