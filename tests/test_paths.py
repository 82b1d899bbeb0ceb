"""Errors of the disk name the file, locks of read-only folders, and what dead processes left."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock

from kd_env import paths
from kd_env.errors import InputError
from kd_env.paths import cache_dir, locked, naming, partial_file, sweep


def test_an_error_without_a_file_names_it():
    with pytest.raises(OSError, match="No space left") as caught, naming(Path("some/file")):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert caught.value.filename == "some/file"


def test_an_error_of_a_library_becomes_one_of_the_system():
    with pytest.raises(OSError, match="No space left") as caught, naming(Path("some/file")):
        raise RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)")
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, "some/file")
    with pytest.raises(RuntimeError, match="mine"), naming(Path("some/file")):
        raise RuntimeError("mine")


def refusing(number):
    def acquire(self, *_, **__):
        raise OSError(number, os.strerror(number), self.lock_file)

    return acquire


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES])
def test_what_is_there_is_used_without_a_lock_in_a_read_only_folder(monkeypatch, tmp_path, number):
    monkeypatch.setattr(FileLock, "acquire", refusing(number))
    with locked(tmp_path):
        pass
    with pytest.raises(OSError, match=r"missing\.lock"), locked(tmp_path / "missing"):
        pass


def test_other_errors_of_a_lock_are_not_ignored(monkeypatch, tmp_path):
    monkeypatch.setattr(FileLock, "acquire", refusing(errno.EMFILE))
    with pytest.raises(OSError, match="Too many open files"), locked(tmp_path):
        pass


def test_a_lock_is_held(tmp_path):
    with locked(tmp_path / "x"), pytest.raises(TimeoutError):
        FileLock(tmp_path / "x.lock", timeout=0).acquire()
    FileLock(tmp_path / "x.lock", timeout=0).acquire()


def test_partial_files_of_dead_processes_are_swept(monkeypatch, tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    alive = partial_file(tmp_path / "trace.parquet")
    other = tmp_path / f".trace.parquet.another-machine.{dead.pid}"
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: dead.pid)
        left = partial_file(tmp_path / "trace.parquet")
    for file in (alive, other, left, tmp_path / "trace.parquet"):
        file.touch()
    sweep(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([alive, other, tmp_path / "trace.parquet"])


def test_no_home_folder(monkeypatch):
    def no_home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("KD_ENV_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(paths.Path, "home", no_home)
    with pytest.raises(InputError, match="set KD_ENV_CACHE"):
        cache_dir()
