"""Kill commands with SIGKILL at random moments: run again, they end in the same records, traces and weights.

``KD_ENV_KILLS=15 pytest -m slow tests/test_kills.py -k random`` kills each of the eight commands 15 times, 120 times in all, and prints
what happened.
"""

import os
import random
import re
import shutil
import signal
import time

import pytest
from processes import content, errors_of, start

KILLS = int(os.environ.get("KD_ENV_KILLS", "3"))
SMALL = "--set batch_size=8 --student mlp(width=16) --workers 1 --no-test --save-policy --checkpoint-minutes 0.001"
TEXT = "tiny-bert(width=16,layers=1,dropout=0.1)"
COMMANDS = {
    "run": f"run --task digits --policy reinforce --policy akd(training_episodes=1) --seeds 0 --updates 200 {SMALL}",
    "run --population": f"run --task digits --policy gradient_credit --seeds 0-2 --updates 200 --population 3 {SMALL}",
    "teach": f"teach --task folder:DATA --model {TEXT} --epochs 6 --checkpoint-minutes 0.001",
    "bank": "bank --task digits --teachers digits/mixed",
    "bench": "bench tiny --workers 1 --checkpoint-minutes 0.001",
    "distill race": f"distill --task folder:DATA --student {TEXT} --budget 300",
    "distill": f"distill --task folder:DATA --policy uniform --student {TEXT} --seeds 0-1 --updates 30 --trim-vocabulary",
    "run --keep": f"run --task folder:DATA --policy uniform --student {TEXT} --seeds 0-2 --updates 10 --workers 1 --no-test",
}
SAVED = {"run": "*.checkpoint", "run --population": "*.checkpoint", "bench": "*.checkpoint", "distill race": "race.json"}
"""The files in which unfinished work of a command is saved."""


def kill_and_finish(command, data, out, seconds, rng, kills, saved):
    """Run a command until it ends, killed up to ``kills`` times on the way.

    Return the kills that hit, those of them after work was ``saved``, and the lines about resuming.
    """
    hits, after_save, lines = 0, 0, []
    while True:
        process = start(command, data, out)
        process.join(rng.uniform(0.1, 1.0) * seconds if hits < kills else None)
        if process.exitcode is None:
            process.kill()
            process.join()
        lines += re.findall(r".*(?:resumed at update|set-aside).*", errors_of(out))
        if process.exitcode == 0:
            return hits, after_save, lines
        assert process.exitcode == -signal.SIGKILL, errors_of(out)
        hits += 1
        after_save += bool(saved) and any(out.parent.rglob(f"*killed*/**/{saved}"))


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", COMMANDS)
def test_killed_at_random_moments_it_ends_equally(name, own_data, tmp_path, capsys):
    rng = random.Random(name)
    for folder in ("warm", "whole"):  # the first builds what the cache holds
        began = time.monotonic()
        process = start(COMMANDS[name], own_data, tmp_path / folder)
        process.join()
        assert process.exitcode == 0, errors_of(tmp_path / folder)
    seconds, expected = time.monotonic() - began, content(tmp_path / "whole")
    assert expected
    hits, after_save, lines, saved = 0, 0, [], SAVED.get(name)
    while hits < KILLS or (saved and not after_save):
        kills = min(max(KILLS - hits, 1), 5)
        new_hits, new_after_save, new_lines = kill_and_finish(COMMANDS[name], own_data, tmp_path / "killed", seconds, rng, kills, saved)
        hits, after_save, lines = hits + new_hits, after_save + new_after_save, lines + new_lines
        assert content(tmp_path / "killed") == expected
        left = [path.name for path in tmp_path.rglob(".*")] + [path.name for path in tmp_path.rglob("checkpoints/*")]
        assert left == [], "a finished command leaves nothing of those that were killed"
        shutil.rmtree(tmp_path / "killed")
    resumed = sum("resumed" in line for line in lines)
    assert resumed == len(lines), "no checkpoint was damaged"
    with capsys.disabled():
        print(f"\n{name}: {hits} kills, {after_save} after work was saved, {resumed} lines about resuming", end="")
        print(f", all equal; {seconds:.0f} s without kills")


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
@pytest.mark.parametrize("workers", [1, 2])
def test_a_signal_saves_the_trials_that_are_under_way(number, status, workers, own_data, tmp_path):
    """They resume where the signal stopped them, not at their last checkpoint."""
    small = f"--set batch_size=8 --student mlp(width=16) --workers {workers} --no-test --checkpoint-minutes 0.001"
    command = f"run --task digits --policy reinforce --seeds 0-1 --updates 1500 {small}"
    whole = start(command, own_data, tmp_path / "whole")
    whole.join()
    assert whole.exitcode == 0
    stopped = start(command, own_data, tmp_path / "stopped")
    while len(saved := list((tmp_path / "stopped").glob("checkpoints/*.checkpoint"))) < workers:
        time.sleep(0.05)
    before = [file.stat().st_mtime_ns for file in saved]
    os.kill(stopped.pid, number)
    stopped.join()
    assert stopped.exitcode == status
    assert errors_of(tmp_path / "stopped").endswith("stopped; what is finished is kept, and the same command continues\n")
    assert sorted(saved) == sorted((tmp_path / "stopped" / "checkpoints").iterdir())
    assert all(file.stat().st_mtime_ns > time_before for file, time_before in zip(saved, before, strict=True))
    again = start(command, own_data, tmp_path / "stopped")
    again.join()
    assert again.exitcode == 0
    assert len(re.findall(r"reinforce seed \d: resumed at update [1-9]\d* of 1500", errors_of(tmp_path / "stopped"))) == workers
    assert content(tmp_path / "stopped") == content(tmp_path / "whole")
