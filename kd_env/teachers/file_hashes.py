"""Hash the files of checkpoints and pools, so that a change of their content is noticed."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from itertools import islice
from pathlib import Path

from kd_env.errors import InputError
from kd_env.models.checkpoint_files import FILES

SUMS = "SHA256SUMS"
"""In the folder of a teacher that kd-env made: hashes of its files, in the format of ``sha256sum``."""
TEACHING_FILE = "teaching.json"
"""In that folder: how the teacher was trained, and the losses of each epoch. Without it, the folder is a checkpoint made of the teacher."""
MAX_FILES = 10_000
"""The largest number of files and folders in a folder of teachers. It refuses a home folder, which holds more."""


def checkpoint_hash(folder: Path) -> str:
    """Return the hash of the contents of a checkpoint's files."""
    digest = hashlib.sha256()
    for name, file_hash in _file_hashes(folder).items():
        digest.update(f"{name}:{file_hash}|".encode())
    return digest.hexdigest()


def write_sums(folder: Path) -> None:
    """Write the hashes of a checkpoint's files, for :func:`require_unchanged`."""
    (folder / SUMS).write_text("".join(f"{file_hash}  {name}\n" for name, file_hash in _file_hashes(folder).items()))


def require_unchanged(folder: Path) -> None:
    """Check the files of a teacher that kd-env taught against the hashes of :func:`write_sums`.

    Raises:
        InputError: a file has changed or is missing.
    """
    if not (folder / SUMS).is_file() or not (folder / TEACHING_FILE).is_file():
        return
    hashes = _file_hashes(folder)
    for line in (folder / SUMS).read_text(errors="replace").splitlines():
        file_hash, _, name = line.partition("  ")
        if hashes.get(name) != file_hash:
            raise InputError(
                f"{folder / name}: the file has changed since kd-env teach wrote it; teach it again, or delete {SUMS} if you changed it"
            )


def content_hash(text: str) -> str:
    """Return the hash of the files that ``text`` names: a checkpoint, a folder of several, or a pool file.

    It is empty where ``text`` names no file or folder of this machine.

    Raises:
        InputError: the folder holds so many files that it is not a checkpoint.
    """
    path = Path(text).expanduser()
    if path.is_file():
        return hashlib.sha256(path.read_bytes()).hexdigest()
    if not text or not path.is_dir():
        return ""
    content = list(islice(path.rglob("*"), MAX_FILES + 1))
    if len(content) > MAX_FILES:
        raise InputError(f"{path} holds more than {MAX_FILES:,} files and folders; name the folder of a checkpoint, or of a few")
    folders = sorted(inner for inner in [path, *content] if inner.is_dir() and not inner.name.startswith("."))
    return hashlib.sha256(":".join(checkpoint_hash(inner) for inner in folders).encode()).hexdigest()


def _file_hashes(folder: Path) -> dict[str, str]:
    paths = sorted({path for pattern in FILES for path in folder.glob(pattern) if path.is_file()})
    stats = [path.stat() for path in paths]
    return {path.name: _file_hash(path, stat.st_size, stat.st_mtime_ns) for path, stat in zip(paths, stats, strict=True)}


@lru_cache(maxsize=1024)
def _file_hash(path: Path, _size: int, _changed: int) -> str:
    """Size and time of change are part of the key of the cache."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
