"""Progress in a pipe: lines with the rate and the time left, not too many."""

import pytest

from kd_env.benchmark import progress as progress_module
from kd_env.benchmark.progress import Progress
from kd_env.benchmark.trial import Trial


def shown(monkeypatch, capsys, seconds_per_update):
    """The lines of 100 updates."""
    clock = iter(range(10**9))
    monkeypatch.setattr(progress_module.time, "monotonic", lambda: seconds_per_update * next(clock))
    with Progress() as progress:
        progress.start(1, 100, skipped=0)
        for update in range(100):
            progress.advance("uniform", 3, 1, 0.5 if update == 20 else None)
    return capsys.readouterr().err.splitlines()


def test_lines_come_every_half_minute(monkeypatch, capsys):
    first, *lines = shown(monkeypatch, capsys, seconds_per_update=5.0)
    assert first == "1 trial to run"
    assert 5 < len(lines) < 34, "at least 30 s apart"
    assert all(" of 100 updates; " in line and "updates/s, about" in line for line in lines[1:-1])
    measured = [line.endswith("; uniform seed 3: validation 0.500") for line in lines]
    assert not measured[0]
    assert measured[-1], "the last score stays, though later updates measure none"
    assert measured == sorted(measured)


def test_short_work_prints_no_lines(monkeypatch, capsys):
    assert shown(monkeypatch, capsys, seconds_per_update=0.001) == ["1 trial to run"]


def test_teachers_and_banks_of_equal_names_are_counted_separately(monkeypatch, capsys):
    clock = iter(range(0, 10**9, 60))
    monkeypatch.setattr(progress_module.time, "monotonic", lambda: next(clock))
    with Progress() as progress:
        for total in (4, 2):
            for done in range(1, total + 1):
                progress.teaching("teacher small", done, total, "")
                progress.bank("small, train", done, total)
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(" updates")[0] for line in lines if "updates" in line] == [
        *(f"teacher small: {done} of 4" for done in range(1, 5)),
        *(f"teacher small: {done} of 2" for done in range(1, 3)),
    ]
    assert [line for line in lines if "bank" in line] == ["  bank: small, train, 4 examples", "  bank: small, train, 2 examples"]


def test_quiet_prints_nothing(monkeypatch, capsys):
    with Progress(quiet=True) as progress:
        progress.start(1, 100, skipped=0)
        monkeypatch.setattr(progress_module.time, "monotonic", lambda: 1e9)
        progress.advance("uniform", 3, 1, None)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("policy", "frozen", "students"),
    [
        ("uniform", False, 1),
        ("sb3:PPO", False, 1),
        ("piloted", False, 2),
        ("akd", False, 5),
        ("akd(training_episodes=2)", False, 3),
        ("akd(training_episodes=2)", True, 1),
    ],
)
def test_updates_of_students_on_which_the_policy_learns_are_part_of_the_work(policy, frozen, students):
    assert Trial("digits", policy, 0, settings={"updates": 100}, frozen=frozen).updates == students * 100
