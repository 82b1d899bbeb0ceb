"""Workers that the system kills are replaced, and the records are those of one process."""

import signal

import pytest

from kd_env.benchmark import records
from kd_env.benchmark.progress import Progress
from kd_env.benchmark.rerun import COMPARED
from kd_env.benchmark.run import run
from kd_env.benchmark.trial import Trial
from kd_env.benchmark.worker_ends import was_killed
from kd_env.errors import InputError

pytestmark = pytest.mark.long

POLICY = """
import os, signal, torch
from pathlib import Path
from kd_env.benchmark import process_executor

class KilledOnce:
    supports_population = False

    def __init__(self, context, seed, mark):
        self.seed, self.mark, self.calls = seed, Path(mark), 0

    def decide(self, batch):
        self.calls += 1
        if self.seed == 2 and self.calls == 3 and not self.mark.exists():
            self.mark.touch()
            process_executor._channel._wlock.acquire()  # as a worker that is killed while it reports
            os.kill(os.getpid(), signal.SIGKILL)
        logits = batch.teacher_logits
        return torch.full(logits.shape[:-1], 1.0 / logits.shape[-2])
"""


def compared(folder):
    return {record["seed"]: {field: record[field] for field in COMPARED if field != "trial"} for record in records.read(folder)}


def test_a_killed_worker_is_replaced_and_the_records_are_equal(tmp_path, monkeypatch, capsys):
    (tmp_path / "killed_once.py").write_text(POLICY)
    monkeypatch.syspath_prepend(tmp_path)
    mark = tmp_path / "mark"
    trials = [Trial("digits", f"killed_once:KilledOnce(mark='{mark}')", seed, settings={"updates": 5}, test=False) for seed in range(4)]
    with Progress() as progress:
        run(trials, tmp_path / "killed", progress, workers=2)
    assert mark.exists()
    assert "a worker process was killed by signal 9 (SIGKILL)" in capsys.readouterr().err
    run(trials, tmp_path / "local", Progress(quiet=True), workers=2, executor="local")
    assert compared(tmp_path / "killed") == compared(tmp_path / "local")


@pytest.mark.parametrize(
    ("exit_codes", "killed"), [([None, 0], False), ([-signal.SIGTERM, 3], False), ([-signal.SIGTERM, -signal.SIGKILL], True), ([-11], True)]
)
def test_only_signals_of_others_count(exit_codes, killed):
    assert was_killed(exit_codes) == killed


def test_an_unknown_executor_is_refused_before_anything_runs(tmp_path):
    with pytest.raises(InputError, match=r"executor='dask'.*local or process or ray"):
        run([Trial("digits", "uniform", 0)], tmp_path / "out", Progress(quiet=True), executor="dask")
    assert not (tmp_path / "out").exists()
