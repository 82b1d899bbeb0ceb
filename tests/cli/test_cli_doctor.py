"""``kd-env doctor``: facts about the installation, and problems with how to fix them."""

import os
from pathlib import Path

import pytest
import torch
from commands import error_line, start_command

from kd_env.cli import doctor as doctor_module
from kd_env.cli import invoke

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


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_cache_that_cannot_be_written_is_a_problem(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("KD_ENV_CACHE", str(tmp_path / "cache"))
    tmp_path.chmod(0o500)
    assert invoke(["doctor"]) == 1
    assert (
        f"PROBLEM: cache {tmp_path}/cache cannot be written; set KD_ENV_CACHE to a folder that you can write to" in capsys.readouterr().out
    )


def test_an_unknown_task_and_a_folder_without_a_task_are_refused(capsys):
    assert "unknown task 'digit'; did you mean 'digits'?" in error_line(capsys, invoke(["doctor", "--task", "digit"]))
    assert "--data-dir data: no task; give --task too" in error_line(capsys, invoke(["doctor", "--data-dir", "data"]))
