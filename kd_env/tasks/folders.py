"""Find data files in a folder that the user named."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections.abc import Iterable
from pathlib import Path

from kd_env.errors import InputError
from kd_env.tasks.columnar import DATASET_FILES, is_dataset, read_dataset, read_parquet
from kd_env.tasks.columnar import SUFFIX as PARQUET
from kd_env.tasks.tables import READERS, Table, read_table

ROLES = ("train", "reward", "validation", "dev", "test")
"""Names of the files, or folders, that hold a split."""
UNLABELLED = ("unlabelled", "unlabeled")
"""Both spellings of the file of texts without labels."""
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


def content_stamp(paths: Iterable[Path]) -> str:
    """Return a hash of the names, sizes and times of change of files, and of all that folders hold; it reads no file.

    Hidden files in a folder do not count. A folder to which several symbolic links lead is listed once.

    Args:
        paths: files and folders, in a fixed order. Those that are not there do not count.
    """
    digest, listed = hashlib.sha256(), set[str]()
    for path in map(str, paths):
        _add_file(digest, path)
        for place, folders, names in os.walk(path, followlinks=True):
            target = os.path.realpath(place)
            digest.update(f"{place}\0{target}\0".encode(errors="surrogateescape"))
            if target in listed:  # links between folders would lead to ever longer paths
                folders.clear()
                continue
            listed.add(target)
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            for name in sorted(name for name in names if not name.startswith(".")):
                _add_file(digest, os.path.join(place, name))
    return digest.hexdigest()


def _add_file(digest: hashlib._Hash, path: str) -> None:
    """Add the name, size and time of change of a file to the hash; not of a folder, whose time changes with each file that is not read."""
    with contextlib.suppress(OSError):  # a dangling link, which the reader of the folder names
        status = os.stat(path)
        if not stat.S_ISDIR(status.st_mode):
            digest.update(f"{path}\0{status.st_size}\0{status.st_mtime_ns}\0".encode(errors="surrogateescape"))


def files_of_texts(folder: Path) -> list[Path]:
    """Return what ``folder:PATH`` may read: the files and datasets of all splits and of unlabelled texts, or the files of one dataset."""
    try:
        if is_dataset(folder):
            return [path for pattern in DATASET_FILES for path in sorted(folder.glob(pattern))]
        return [path for name in (*ROLES, *UNLABELLED) for path in _files_of(folder, name)]
    except OSError:  # a folder without permission, which the reader of the folder names
        return []


def folders_of_images(folder: Path) -> list[Path]:
    """Return what ``images:PATH`` may read: the folders of all splits."""
    return [folder / role for role in ROLES]


def find_file(folder: Path, name: str) -> Path | None:
    """Return the file of that name with any suffix of :data:`SUFFIXES`, its first Parquet shard, or a dataset's folder; else ``None``.

    Raises:
        InputError: there are several, or it is a symbolic link to nothing.
    """
    require_targets(folder / f"{name}{suffix}" for suffix in SUFFIXES)
    paths = _files_of(folder, name)
    shards = [path for path in paths if path.name.startswith(f"{name}-")]
    return require_single([path for path in paths if path not in shards[1:]], "one file of each name")


def _files_of(folder: Path, name: str) -> list[Path]:
    """Return the files of that name with any suffix of :data:`SUFFIXES`, its Parquet shards, and the folder if it is a dataset."""
    files = [path for suffix in SUFFIXES if (path := folder / f"{name}{suffix}").exists()]
    shards = sorted([*folder.glob(f"{name}-*-of-*{PARQUET}"), *folder.glob(f"data/{name}-*-of-*{PARQUET}")])
    return [*files, *shards, *([folder / name] if is_dataset(folder / name) else [])]


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
