"""Kill commands with SIGKILL at random moments: run again, they end in the same records, traces and weights.

``KD_ENV_KILLS=30 pytest -m slow tests/test_kills.py -s`` kills each command 30 times and prints what happened.
"""

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest

from kd_env.benchmark import records
from kd_env.benchmark.rerun import COMPARED

KILLS = int(os.environ.get("KD_ENV_KILLS", "3"))
STUDENT = "tiny-bert(width=16,layers=1,dropout=0.1)"
COMMANDS = {
    "run": "run --task digits --policy reinforce --policy akd(training_episodes=1) --seeds 0-1 --updates 300 --workers 1 --save-policy",
    "run --population": "run --task digits --policy gradient_credit --policy camkd --seeds 0-2 --updates 200 --workers 2 --population 3",
    "teach": f"teach --task folder:DATA --model {STUDENT} --epochs 6",
    "bank": "bank --task digits --teachers digits/mixed",
    "distill": f"distill --task folder:DATA --policy uniform --student {STUDENT} --seeds 0-1 --updates 40",
}
MINUTES = 0.003


def start(command, data, out):
    words = command.replace("DATA", str(data)).split()
    saves = [] if words[0] in ("bank", "distill") else ["--checkpoint-minutes", str(MINUTES)]
    script = "import sys; from kd_env.cli import invoke; sys.exit(invoke(sys.argv[1:]))"
    arguments = [sys.executable, "-c", script, *words, *saves, "--out", str(out)]
    return subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def content(out):
    """Return all that a command leaves and that must be equal: files by name, records without times."""
    kept = {}
    for path in sorted(out.rglob("*")):
        name = str(path.relative_to(out))
        if path.suffix in (".parquet", ".agent", ".safetensors", ".npy") or path.name in ("teaching.json", "bank.json"):
            kept[name] = path.read_bytes()
        elif path.name == records.FILE:
            kept[name] = {record["trial"]: {field: record[field] for field in COMPARED} for record in records.read(path.parent)}
    return kept


def kill_and_finish(command, data, out, seconds, rng, kills):
    """Run a command until it ends, killed ``kills`` times on the way; return the kills that hit, and the lines about resuming."""
    hits, lines = 0, []
    while True:
        process = start(command, data, out)
        try:
            if hits < kills:
                _, errors = process.communicate(timeout=rng.uniform(0.2, 1.0) * seconds)
            else:
                _, errors = process.communicate()
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            errors = process.communicate()[1]
            assert process.returncode == -signal.SIGKILL
            hits += 1
        lines += re.findall(r".*(?:resumed at update|set-aside).*", errors)
        if process.returncode == 0:
            return hits, lines
        assert process.returncode == -signal.SIGKILL, errors


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", COMMANDS)
def test_killed_at_random_moments_it_ends_equally(name, own_data, tmp_path, capsys):
    rng = random.Random(name)
    start(COMMANDS[name], own_data, tmp_path / "warm").communicate()  # it builds what the cache holds
    began = time.monotonic()
    process = start(COMMANDS[name], own_data, tmp_path / "whole")
    errors = process.communicate()[1]
    assert process.returncode == 0, errors
    seconds, expected = time.monotonic() - began, content(tmp_path / "whole")
    assert expected
    hits, lines = 0, []
    while hits < KILLS:
        new_hits, new_lines = kill_and_finish(COMMANDS[name], own_data, tmp_path / "killed", seconds, rng, min(KILLS - hits, 4))
        hits, lines = hits + new_hits, lines + new_lines
        assert content(tmp_path / "killed") == expected
        left = [path.name for path in tmp_path.rglob(".*")] + [path.name for path in tmp_path.rglob("checkpoints/*")]
        assert left == [], "a finished command leaves nothing of those that were killed"
        shutil.rmtree(tmp_path / "killed")
    resumed = sum("resumed" in line for line in lines)
    assert resumed == len(lines), "no checkpoint was damaged"
    with capsys.disabled():
        print(f"\n{name}: {hits} kills, {resumed} times resumed within a trial or teacher, all equal; {seconds:.0f} s without kills")
