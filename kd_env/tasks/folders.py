"""Find data files in a folder that the user named."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

from kd_env.errors import InputError
from kd_env.tasks.columnar import SUFFIX as PARQUET
from kd_env.tasks.columnar import is_dataset, read_dataset, read_parquet
from kd_env.tasks.tables import READERS, Table, read_table

ROLES = ("train", "reward", "validation", "dev", "test")
"""Names of the files, or folders, that hold a split."""
SUFFIXES = (*READERS, PARQUET)
"""Suffixes of the files that can be read."""


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


def require_targets(paths: Iterable[Path]) -> None:
    """Check that no path is a symbolic link to something that is not there, which would be missing from the data without a word.

    Raises:
        InputError: some are; it names the first and their number.
    """
    if dangling := [path for path in paths if path.is_symlink() and not path.exists()]:
        number = f", the first of {len(dangling):,} such links" if len(dangling) > 1 else ""
        raise InputError(f"{dangling[0]}: a symbolic link to {dangling[0].readlink()}, which does not exist{number}; repair or delete it")


def content_stamp(folder: Path) -> str:
    """Return a hash of the names, sizes and times of change of all files in a folder; it reads no file. Hidden files do not count."""
    digest = hashlib.sha256()
    for place, folders, names in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        folders[:] = [name for name in folders if not Path(place).resolve().is_relative_to(Path(place, name).resolve())]  # no endless loop
        for name in sorted(name for name in names if not name.startswith(".")):
            path = os.path.join(place, name)
            with contextlib.suppress(OSError):  # a dangling link, which the reader of the folder names
                status = os.stat(path)
                digest.update(f"{path}\0{status.st_size}\0{status.st_mtime_ns}\0".encode(errors="surrogateescape"))
    return digest.hexdigest()


def find_file(folder: Path, name: str) -> Path | None:
    """Return the file of that name with any suffix of :data:`SUFFIXES`, its first Parquet shard, or a dataset's folder; else ``None``.

    Raises:
        InputError: there are several, or it is a symbolic link to nothing.
    """
    require_targets(folder / f"{name}{suffix}" for suffix in SUFFIXES)
    files = [path for suffix in SUFFIXES if (path := folder / f"{name}{suffix}").exists()]
    shards = sorted([*folder.glob(f"{name}-*-of-*{PARQUET}"), *folder.glob(f"data/{name}-*-of-*{PARQUET}")])
    datasets = [folder / name] if is_dataset(folder / name) else []
    return require_single([*files, *shards[:1], *datasets], "one file of each name")


def read_split(path: Path) -> Table:
    """Read what :func:`find_file` returned.

    Raises:
        InputError: it cannot be read.
    """
    if is_dataset(path):
        return read_dataset(path)
    return read_parquet(path) if path.suffix == PARQUET else read_table(path)


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
