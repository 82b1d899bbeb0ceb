"""Checkpoints that cannot be used, or cannot be written: what is said, and that no trial is lost."""

import dataclasses
import errno

import pytest
from stopped_trials import Stop, assert_equal, run, trial

from kd_env import interrupts
from kd_env.benchmark import checkpoints
from kd_env.benchmark.checkpoints import FOLDER, CheckpointSettings
from kd_env.benchmark.run_trial import run_trials


@pytest.mark.long
@pytest.mark.parametrize("place", [0.02, 0.5, 0.99])
def test_a_damaged_checkpoint_is_named_and_set_aside(place, tmp_path, monkeypatch):
    monkeypatch.setattr(interrupts, "interrupted", Stop(4))
    with pytest.raises(KeyboardInterrupt):
        run_trials([trial()], tmp_path, lambda _: None, None, CheckpointSettings(tmp_path))
    (file,) = (tmp_path / FOLDER).iterdir()
    content = bytearray(file.read_bytes())
    content[int(place * len(content))] ^= 4
    file.write_bytes(content)
    (record,), _, messages = run([trial()], tmp_path, monkeypatch)
    assert len(messages) == 1
    assert str(file) in messages[0]
    assert messages[0].endswith(f"it is now {trial().id}.set-aside, and the trial starts over")
    assert [path.name for path in (tmp_path / FOLDER).iterdir()] == [f"{trial().id}.set-aside"]
    assert len(record["curve"]) == 4


@pytest.mark.long
def test_a_checkpoint_of_another_version_is_set_aside(tmp_path, monkeypatch):
    monkeypatch.setattr(interrupts, "interrupted", Stop(4))
    with pytest.raises(KeyboardInterrupt):
        run_trials([trial()], tmp_path, lambda _: None, None, CheckpointSettings(tmp_path))
    monkeypatch.setattr("kd_env.benchmark.run_trial.versions", lambda: {"torch": "0.1"})
    _, _, messages = run([trial()], tmp_path, monkeypatch)
    assert "is of another run; these differ: versions; it is now" in messages[0]


@pytest.mark.long
def test_an_error_of_the_moment_leaves_the_checkpoint(tmp_path, monkeypatch):
    monkeypatch.setattr(interrupts, "interrupted", Stop(4))
    with pytest.raises(KeyboardInterrupt):
        run_trials([trial()], tmp_path, lambda _: None, None, CheckpointSettings(tmp_path))
    (file,) = (tmp_path / FOLDER).iterdir()
    content = file.read_bytes()
    file.unlink()
    file.mkdir()  # reading it is an error of the operating system
    with pytest.raises(IsADirectoryError):
        run([trial()], tmp_path, monkeypatch)
    file.rmdir()
    file.write_bytes(content)
    assert run([trial()], tmp_path, monkeypatch)[2] == ["reinforce seed 3: resumed at update 5 of 14"]


def test_a_state_that_cannot_be_saved_does_not_end_the_trial(tmp_path, monkeypatch):
    monkeypatch.setattr("agents.reinforce.Reinforce.state", lambda _: {"x": object()})
    _, _, messages = run([dataclasses.replace(trial(), save_policy=False)], tmp_path, monkeypatch, minutes=0.0)
    assert messages[0].startswith("policy 'reinforce': state() cannot be saved (Object of type object is not JSON serializable); return")
    assert messages[0].endswith("The checkpoint is not saved, and the trial continues")


@pytest.mark.long
def test_a_full_disk_does_not_end_the_trial(tmp_path, monkeypatch):
    def full(path, *_parts):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    expected = run([trial()], tmp_path / "expected", monkeypatch)
    monkeypatch.setattr(checkpoints, "write_bytes", full)
    failing = run([trial()], tmp_path / "full", monkeypatch, minutes=0.0)
    assert_equal(expected, failing, [trial()], (tmp_path / "expected", tmp_path / "full"))
    messages = failing[2]
    assert messages[0].endswith(f"{trial().id}.checkpoint: No space left on device; the checkpoint is not saved, and the trial continues")
