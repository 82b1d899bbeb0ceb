"""A worker process that ends within a trial: one line says how, and finished trials are kept."""

import signal

import pytest

from kd_env.benchmark import records
from kd_env.benchmark.progress import Progress
from kd_env.benchmark.run import run
from kd_env.benchmark.trial import Trial
from kd_env.benchmark.worker_ends import TERMINATED, worker_died
from kd_env.errors import InputError

pytestmark = pytest.mark.long

POLICY = """
import os, signal, sys, threading, torch

class Unpicklable(Exception):
    def __init__(self, text, other):
        super().__init__(text)
        self.lock = threading.Lock()

class Ends:
    supports_population = False

    def __init__(self, context, seed, how):
        self.seed, self.how, self.calls = seed, how, 0

    def decide(self, batch):
        self.calls += 1
        if self.seed == 2 and self.calls == 3:
            if self.how == "raises":
                raise Unpicklable("my own text", 1)
            os._exit(3) if self.how == "exits" else os.kill(os.getpid(), signal.SIGKILL)
        logits = batch.teacher_logits
        return torch.full(logits.shape[:-1], 1.0 / logits.shape[-2])
"""


@pytest.mark.parametrize(
    ("exit_codes", "message"),
    [
        ([TERMINATED, -9, -15, None], "killed by signal 9 (SIGKILL), perhaps because memory was short; give fewer --workers; finished"),
        ([-15, -11], "killed by signal 11 (SIGSEGV); finished"),
        ([3, -15], "a plug-in or a library ended a worker process with status 3 (--executor local shows where); finished"),
        ([-15, TERMINATED], "killed by signal 15 (SIGTERM); finished"),
        ([-63], "killed by signal 63; finished"),
        ([], "killed by signal 15 (SIGTERM); finished"),
    ],
)
def test_the_message_tells_ends_apart(exit_codes, message):
    assert message in worker_died(exit_codes)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        pytest.param("killed", f"a worker process was killed by signal {signal.SIGKILL:d} ", id="killed"),
        pytest.param("exits", "a plug-in or a library ended a worker process with status 3 ", id="exits", marks=pytest.mark.slow),
        pytest.param(
            "raises", r"policy ending:Ends, act\(\): Unpicklable: my own text \(.*ending.py, line 19\)", id="raises", marks=pytest.mark.slow
        ),
    ],
)
def test_a_worker_that_ends_stops_the_run(how, message, tmp_path, monkeypatch):
    (tmp_path / "ending.py").write_text(POLICY)
    monkeypatch.syspath_prepend(tmp_path)
    trials = [Trial("digits", f"ending:Ends(how={how})", seed, settings={"updates": 5}, test=False) for seed in range(4)]
    with pytest.raises(InputError, match=message):
        run(trials, tmp_path / "out", Progress(quiet=True), workers=2)
    kept = {record["seed"] for record in records.read(tmp_path / "out")}
    assert kept
    assert 2 not in kept
