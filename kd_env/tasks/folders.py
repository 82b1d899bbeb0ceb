"""Find data files in a folder that the user named."""

from __future__ import annotations

from pathlib import Path

from kd_env.errors import InputError
from kd_env.tasks.tables import READERS

ROLES = ("train", "reward", "validation", "dev", "test")
"""Names of the files, or folders, that hold a split."""


def require_folder(path: object, task: str) -> Path:
    """Return ``path`` as a folder that can be listed.

    Args:
        task: name of the task, for messages.

    Raises:
        InputError: ``path`` is missing, no text, no folder, or cannot be read.
    """
    if path is None:
        raise InputError(f"task {task!r} is read from a folder; name it, as --data-dir PATH or {task}(data_dir=PATH)")
    if not isinstance(path, str) or not path:
        raise InputError(f"task {task!r}: {path!r} is not the name of a folder; give one, and write a number as ./7")
    folder = Path(path).expanduser()
    if not folder.is_dir():
        reason = "is a file" if folder.is_file() else "does not exist"
        raise InputError(f"task {task!r}: {folder} {reason}; name a folder of data files")
    try:
        next(folder.iterdir(), None)
    except OSError as error:
        raise InputError(f"task {task!r}: {folder} cannot be read ({error.strerror}); check its permissions") from None
    return folder


def find_file(folder: Path, name: str) -> Path | None:
    """Return the file of that name with any suffix of :data:`~kd_env.tasks.tables.READERS`, or ``None``.

    Raises:
        InputError: there are several.
    """
    return require_single([path for suffix in READERS if (path := folder / f"{name}{suffix}").exists()], "one file of each name")


def require_single(files: list[Path], expected: str) -> Path | None:
    """Return the only file, or ``None`` if there is none.

    Args:
        expected: what to keep, for the message.

    Raises:
        InputError: there are several.
    """
    if len(files) > 1:
        raise InputError(f"{files[0].parent}: both {files[0].name} and {files[1].name}; keep {expected}")
    return files[0] if files else None
