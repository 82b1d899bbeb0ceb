"""Name the folders of files that can be made again (trained pools, banks, tokenizers), and write and lock files."""

from __future__ import annotations

import errno
import fcntl
import os
import platform
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from kd_env.errors import InputError


def cache_dir() -> Path:
    """Return ``$KD_ENV_CACHE`` or, where that is not set, ``kd-env`` in the user's cache folder.

    Deleting the folder costs a rebuild and nothing else.

    Raises:
        InputError: neither is known, as for a user without a home folder.
    """
    own_folder = os.environ.get("KD_ENV_CACHE")
    try:
        return Path(own_folder) if own_folder else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kd-env"
    except RuntimeError as error:
        raise InputError(f"no folder for the cache ({error}); set KD_ENV_CACHE to a folder that you can write to") from None


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Make errors of the operating system name ``path``: those of a full disk name no file by themselves."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path.absolute())
        raise
    except Exception as error:  # libraries that write files raise their own errors, with the system's error in the text
        if number := re.search(r"os error (\d+)", str(error)):
            raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error
        raise


def require_file(path: Path) -> None:
    """Check that ``path`` is not a pipe, socket or device, which could block a reader forever. What is missing is left to the reader.

    Raises:
        InputError: it is one.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise InputError(f"{path} is a pipe or a device; copy its content to a file, and name that")


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a file lock next to ``path`` (``path.lock``).

    What is there already can be used without a lock where its folder cannot be written to, as a shared cache: it does not change.
    """
    lock = FileLock(f"{path}.lock")
    try:
        lock.acquire()
    except OSError as error:
        if error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM) or not path.exists():
            raise
    try:
        yield
    finally:
        lock.release()


@contextmanager
def claim(path: Path) -> Iterator[str]:
    """Lock the file ``path`` for the block, without waiting. The system releases the lock of a process that ends.

    The folder is created if it does not exist, and the file is deleted at the end. On a file system without locks, as some network
    file systems are, every process gets the lock.

    Yields:
        An empty text if this process has the lock, otherwise the process that has it, such as ``process 12 of host``.
    """
    with naming(path):
        descriptor, holder = _open_claimed(path)
    try:
        yield holder
    finally:
        if not holder:
            path.unlink(missing_ok=True)
        os.close(descriptor)


@contextmanager
def claim_folder(folder: Path, work: str) -> Iterator[None]:
    """Hold the lock of an output folder, a file next to it, inside the ``with`` block.

    Args:
        folder: the folder, which need not exist.
        work: what is done to it, for the message of another process, as ``distilling into it``.

    Raises:
        InputError: another process has the lock.
    """
    place = folder.absolute()
    with claim(place.with_name(f".{place.name}.lock")) as holder:
        if holder:
            raise InputError(f"{folder}: {holder} is {work}; wait for it, or name another folder")
        yield


def _open_claimed(path: Path) -> tuple[int, str]:
    """Return the descriptor of the lock file, and the process that has the lock; see :func:`claim`."""
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except FileNotFoundError:  # another process has just removed the empty folder
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                return descriptor, os.pread(descriptor, 200, 0).decode(errors="replace").strip() or "another process"
            if error.errno not in (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP):
                os.close(descriptor)
                raise
        if os.fstat(descriptor).st_nlink:  # otherwise another process deleted the file after it was opened: this lock is useless
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"process {os.getpid()} of {_machine()}\n".encode(), 0)
            return descriptor, ""
        os.close(descriptor)


def write_bytes(path: Path, *parts: bytes) -> None:
    """Write ``parts`` to a file, completely or not at all. After a power cut, the file is either the old one or the new one."""
    partial = partial_file(path)
    try:
        with naming(path):
            with partial.open("wb") as file:
                for part in parts:
                    file.write(part)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise


def partial_file(path: Path) -> Path:
    """Return where this process writes ``path`` before it moves it there; :func:`sweep` finds it if the process is killed."""
    return path.with_name(f".{path.name}.{_machine()}.{os.getpid()}")


def partial_folder(folder: Path) -> Path:
    """Return the folder in which a command makes the content of ``folder``; one that was stopped goes on there."""
    place = folder.absolute()
    return place.with_name(f".{place.name}.partial")


def sweep(folder: Path) -> None:
    """Delete what processes of this machine that are dead left of :func:`partial_file` in ``folder``: files and folders."""
    for path in folder.glob(f".*.{_machine()}.*"):
        process = path.name.rpartition(".")[2]
        if process.isdecimal() and not _alive(int(process)):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def _machine() -> str:
    return re.sub(r"[^A-Za-z0-9-]+", "-", platform.node()) or "localhost"


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True
