"""Errors of the disk name the file, locks of read-only folders, and what dead processes left."""

import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock

from kd_env import paths
from kd_env.errors import InputError
from kd_env.paths import cache_dir, claim, locked, naming, partial_file, sweep, write_bytes


def test_an_error_without_a_file_names_it():
    with pytest.raises(OSError, match="No space left") as caught, naming(Path("some/file")):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert caught.value.filename == str(Path("some/file").absolute())


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
        folder = partial_file(tmp_path / "student")
    folder.mkdir()
    (folder / "config.json").touch()
    for file in (alive, other, left, tmp_path / "trace.parquet"):
        file.touch()
    sweep(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([alive, other, tmp_path / "trace.parquet"])


def test_a_claim_names_its_holder_and_leaves_nothing(tmp_path):
    with claim(tmp_path / "x.lock") as holder:
        assert holder == ""
        for _ in range(2):
            with claim(tmp_path / "x.lock") as second:
                assert second.startswith(f"process {os.getpid()} of ")
        assert (tmp_path / "x.lock").exists(), "one who does not hold it does not delete it"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.long
def test_a_dead_process_holds_no_claim(tmp_path):
    script = "import sys, time; from pathlib import Path; from kd_env.paths import claim\n"
    script += "with claim(Path(sys.argv[1])): print(flush=True); time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", script, str(tmp_path / "x.lock")], stdout=subprocess.PIPE)
    process.stdout.readline()
    with claim(tmp_path / "x.lock") as holder:
        assert holder.startswith(f"process {process.pid} of ")
    process.kill()
    process.communicate()
    assert (tmp_path / "x.lock").exists()
    with claim(tmp_path / "x.lock") as holder:
        assert holder == ""


def test_a_file_that_its_holder_has_deleted_guards_nothing(monkeypatch, tmp_path):
    """A process opens the file, then its holder deletes it and ends: the lock that the process gets is of no file."""
    lock, flock = tmp_path / "x.lock", fcntl.flock

    def late(descriptor, flags):
        monkeypatch.setattr(fcntl, "flock", flock)
        lock.unlink()
        flock(descriptor, flags)

    monkeypatch.setattr(fcntl, "flock", late)
    with claim(lock) as holder:
        assert holder == ""
        with claim(lock) as second:
            assert second, "another one sees it"


def test_where_the_file_system_has_no_locks_everyone_gets_the_claim(monkeypatch, tmp_path):
    def refuse(*_arguments):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with claim(tmp_path / "x.lock") as first, claim(tmp_path / "x.lock") as second:
        assert (first, second) == ("", "")


def test_a_file_is_written_as_a_whole_or_not_at_all(monkeypatch, tmp_path):
    write_bytes(tmp_path / "x", b"one", b"two")
    assert (tmp_path / "x").read_bytes() == b"onetwo"

    def full(_descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"No space left on device: '.*/x'"):
        write_bytes(tmp_path / "x", b"three")
    assert (tmp_path / "x").read_bytes() == b"onetwo"
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_no_home_folder(monkeypatch):
    def no_home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("KD_ENV_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(paths.Path, "home", no_home)
    with pytest.raises(InputError, match="set KD_ENV_CACHE"):
        cache_dir()
