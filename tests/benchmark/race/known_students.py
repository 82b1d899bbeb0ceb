"""A race of students with known predictions."""

from types import SimpleNamespace

import numpy as np

from kd_env.benchmark.race import race as race_module
from kd_env.benchmark.race import score
from kd_env.benchmark.race.plan import Plan, Rung
from kd_env.benchmark.race.race import Race
from kd_env.benchmark.race.report import RaceFacts
from kd_env.benchmark.race.state import RaceState
from kd_env.tasks import Defaults, Split, Task

FACTS = RaceFacts("mlp", ("one", "two"), "200 updates", (0.9, 0.88, 0.92), "kd-env distill --task toy")


def toy():
    def split(size):
        return Split(np.zeros((size, 1, 2, 2), dtype=np.float32), np.arange(size) % 2)

    return Task("toy", "image", split(64), split(100), split(600), split(50), ("no", "yes"), Defaults("own", "mlp", 100, 1.0, 2.0))


class Setup:
    task, settings = toy(), {"updates": 100}

    pool = SimpleNamespace(teachers=("one", "two"))


class FakeProgress:
    def __init__(self):
        self.lines, self.updates = [], 0

    def end_rung(self, line):
        self.lines.append(line)

    def advance_race(self, updates, latest):
        self.updates += updates


class FakeRun:
    """Replaces a ``CandidateRun``: after u updates a student makes ``errors(candidate, seed, u)`` errors in 600 examples.

    Its last update before the end of a rung takes ``seconds``. The candidate ``late`` diverges in the second rung.
    """

    taught, seconds, late = [], 100.0, ""

    def __init__(self, setup, candidate, seeds):
        self.candidate, self.seeds, self.update, self.num_parameters, self.unsaved_seconds = candidate, seeds, 0, 10, 0.0
        self.diverged = np.array([self.errors(candidate, seed, 0) is None for seed in seeds])

    def teach(self, updates, report):
        self.diverged |= self.candidate.name == self.late and updates > 10
        if self.stop_at == (self.candidate.policy, updates):
            raise KeyboardInterrupt
        if self.update < updates:
            self.taught.append((self.candidate.name, tuple(self.seeds), self.update, updates))
        while self.update < updates:
            self.update += 1
            self.unsaved_seconds += self.seconds * (self.update == updates)
            report(self.update)

    def logits(self, split):
        labels = getattr(Setup.task, split).labels
        classes = np.tile(labels, (len(self.seeds), 1))
        for row, seed in zip(classes, self.seeds, strict=True):
            wrong = self.errors(self.candidate, seed, self.update) or 0
            row[:wrong] = 1 - row[:wrong]
        return np.eye(2)[classes]

    def student(self, number):
        return self.candidate.name, self.seeds[number]

    def save(self, folder):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "state").write_text(str(self.update))
        self.unsaved_seconds = 0.0

    def load(self, folder, diverged):
        self.update, self.diverged = int((folder / "state").read_text()), np.array(diverged)


def race_runner(monkeypatch, tmp_path):
    """Return a function that runs a race with given errors; it returns the result, what was taught, and the progress."""

    def runner(
        errors,
        rungs=((10, 7, 1), (30, 4, 1), (60, 3, 1), (100, 1, 1)),
        stop_at=None,
        folder=tmp_path / "race",
        as_population=False,
        logits=FakeRun.logits,
        seconds=100.0,
        late="",
    ):
        content = {"errors": staticmethod(errors), "stop_at": stop_at, "taught": [], "logits": logits, "seconds": seconds, "late": late}
        run_class = type("FakeRunWithErrors", (FakeRun,), content)
        monkeypatch.setattr(race_module, "CandidateRun", run_class)
        monkeypatch.setattr(score, "RESAMPLES", 100)  # a race measures hundreds of differences
        progress = FakeProgress()
        plan = Plan(tuple(Rung(*rung) for rung in rungs), 100)
        race = Race(Setup, plan, RaceState(folder, {"a": 1}), progress, as_population)
        try:
            return race.run(), run_class.taught, progress
        except KeyboardInterrupt:
            return None, run_class.taught, progress

    return runner


def errors_of(table):
    return lambda candidate, seed, update: table.get(candidate.policy, 300) - update
