"""``kd-env doctor``: facts about the installation, and problems with how to fix them."""

import errno
import importlib.metadata
import os
from pathlib import Path

import pytest
import torch
from commands import error_line, start_command

from kd_env.cli import doctor as doctor_module
from kd_env.cli import invoke

pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[2]


def test_a_good_installation_has_no_problem(tmp_path):
    """In another process: pytest puts tests/, which has a folder ``agents``, on the path."""
    process = start_command("doctor", "--task", "digits", cwd=tmp_path)
    output, errors = process.communicate(timeout=120)
    assert (process.returncode, errors) == (0, ""), output
    assert f"torch {torch.__version__.partition('+')[0]}" in output
    assert "PROBLEM" not in output
    assert "task digits: image, 10 classes, train 3588, reward 1200, validation 800, test 1600" in output


def test_another_package_of_the_same_name_is_a_problem(tmp_path):
    (tmp_path / "agents").mkdir()
    (tmp_path / "agents" / "__init__.py").touch()
    process = start_command("doctor", env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}", "PYTHONSAFEPATH": "1"})
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 1
    assert f"PROBLEM: package 'agents' resolves to {tmp_path}, expected {ROOT}" in output
    assert "PROBLEM: package 'baselines'" not in output


def test_a_package_that_is_not_installed_is_a_problem(capsys, monkeypatch):
    monkeypatch.setattr(doctor_module, "PACKAGES", ("kd-env", "no-such-package"))
    assert invoke(["doctor"]) == 1
    assert "PROBLEM: no-such-package is not installed; run: pip install -c constraints.txt -e ." in capsys.readouterr().out


def problems(capsys, environment=()):
    """Run the command, which finds problems, and return their lines."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in dict(environment).items():
            patch.setenv(name, value)
        assert invoke(["doctor"]) == 1
    return [line for line in capsys.readouterr().out.split("\n") if line.startswith("PROBLEM: ")]


def test_another_version_is_a_problem(capsys, monkeypatch):
    monkeypatch.setattr(
        importlib.metadata, "requires", lambda _: ["torch>=99", "numpy>=1", "ray>=1; extra == 'ray'", "nothing-like-this>=2"]
    )
    lines = "\n".join(problems(capsys))
    assert f"torch {torch.__version__} is installed, and kd-env needs torch >=99; run: pip install" in lines
    assert "nothing-like-this is not installed" in lines
    assert "numpy" not in lines
    assert "ray" not in lines


def test_a_cache_that_cannot_be_written_is_a_problem(capsys, tmp_path):
    (tmp_path / "file").touch()
    cache = tmp_path / "file" / "cache"
    expected = f"PROBLEM: cache {cache} cannot be used (Not a directory); set KD_ENV_CACHE to a folder that you can write to"
    assert expected in problems(capsys, {"KD_ENV_CACHE": str(cache)})


@pytest.mark.parametrize(("function", "number"), [("flock", errno.ENOLCK), ("fsync", errno.ENOSPC)])
def test_a_cache_that_cannot_be_locked_or_is_full_is_a_problem(function, number, capsys, monkeypatch, tmp_path):
    def fail(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(doctor_module.fcntl if function == "flock" else doctor_module.os, function, fail)
    assert f"cannot be used ({os.strerror(number)})" in "\n".join(problems(capsys, {"KD_ENV_CACHE": str(tmp_path / "cache")}))


def test_little_space_is_a_problem(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(doctor_module, "MIN_SPACE", 10**18)
    assert "MB of free space; free some" in "\n".join(problems(capsys, {"KD_ENV_CACHE": str(tmp_path / "cache")}))


def test_no_home_and_no_place_for_temporary_files_are_problems(capsys, monkeypatch):
    def nowhere():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("KD_ENV_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", nowhere)
    monkeypatch.setattr(doctor_module.tempfile, "gettempdir", lambda: (_ for _ in ()).throw(FileNotFoundError()))
    lines = "\n".join(problems(capsys))
    assert "set KD_ENV_CACHE to a folder that you can write to" in lines
    assert "set TMPDIR to one that you can write to" in lines


def test_broken_cuda_is_a_problem(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(doctor_module, "NVIDIA", tmp_path)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert f"there is an NVIDIA device, and torch {torch.__version__} cannot use it" in "\n".join(problems(capsys))

    def fail(*_):
        raise RuntimeError("no kernel image is available for execution on the device\nmore")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", fail)
    assert "CUDA does not compute (no kernel image is available for execution on the device); install" in "\n".join(problems(capsys))


def test_a_task_that_cannot_be_loaded_is_a_problem(capsys):
    assert invoke(["doctor", "--task", "digit"]) == 1
    output = capsys.readouterr().out
    assert "PROBLEM: unknown task 'digit'; did you mean 'digits'?" in output
    assert "cores: " in output


def test_a_folder_without_a_task_is_refused(capsys):
    assert "--data-dir data: no task; give --task too" in error_line(capsys, invoke(["doctor", "--data-dir", "data"]))
