"""A race of students with known predictions: which candidates go on, which is kept, and that no update is done twice."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from kd_env.benchmark.race import race as race_module
from kd_env.benchmark.race import score
from kd_env.benchmark.race.candidates import Candidate, candidates_and_cost
from kd_env.benchmark.race.plan import Plan, Rung
from kd_env.benchmark.race.race import Race
from kd_env.benchmark.race.report import RaceFacts, as_json, page, verdict
from kd_env.benchmark.race.state import RaceState
from kd_env.errors import InputError
from kd_env.tasks import Defaults, Split, Task

pytestmark = pytest.mark.long

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

    Its last update before the end of a rung takes ``seconds``.
    """

    taught, seconds = [], 100.0

    def __init__(self, setup, candidate, seeds):
        self.candidate, self.seeds, self.update, self.num_parameters, self.unsaved_seconds = candidate, seeds, 0, 10, 0.0
        self.diverged = np.array([self.errors(candidate, seed, 0) is None for seed in seeds])

    def teach(self, updates, report):
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


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Return a function that runs a race with given errors; it returns the result, what was taught, and the progress."""

    def runner(
        errors,
        rungs=((10, 7, 1), (30, 4, 1), (60, 3, 1), (100, 1, 1)),
        stop_at=None,
        folder=tmp_path / "race",
        as_population=False,
        logits=FakeRun.logits,
        seconds=100.0,
    ):
        content = {"errors": staticmethod(errors), "stop_at": stop_at, "taught": [], "logits": logits, "seconds": seconds}
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


def test_the_best_go_on_and_nothing_is_taught_twice(run):
    result, taught, progress = run(errors_of({"no_teacher": 350, "uniform": 250, "stacking": 200, "held_credit": 260}))
    assert candidates_and_cost(Setup.task, 2, {})[0] == 7
    assert result.kept.policy == "stacking"
    assert result.student == ("stacking, kd_weight 0.5, temperature 2", 0)
    assert [[rung_result.candidate.policy for rung_result in rung] for rung in result.rungs] == [
        ["stacking", *["uniform"] * 3, "held_credit", "camkd_logits", "no_teacher"],
        ["stacking", "uniform", "uniform", "no_teacher"],
        ["stacking", "uniform", "no_teacher"],
        ["stacking"],
    ]
    stretches = [stretch for stretch in taught if stretch[0].startswith("stacking")]
    assert [(start, end) for _, _, start, end in stretches] == [(0, 10), (10, 30), (30, 60), (60, 100)]
    assert progress.updates == result.plan.total_updates == 7 * 10 + 4 * 20 + 3 * 30 + 40
    assert progress.lines[-1] == "rung 4 of 4, 100 of 100 updates: stacking, kd_weight 0.5, temperature 2 0.833"


def test_the_student_without_a_teacher_is_kept_if_the_others_are_no_better(run):
    result, *_ = run(errors_of({"no_teacher": 238, "uniform": 237, "stacking": 236}))
    assert result.kept.policy == "no_teacher", "a difference of 2 in 600 examples is within a standard error"
    text = verdict(Setup.task, result)
    assert text.startswith(
        "**Teachers do not help here.** stacking, kd_weight 0.5, temperature 2 minus the student without a teacher is +0.003 ["
    )
    assert "on 600 labels, after 60 of 100 updates" in text
    assert "is not excluded" in text


def test_the_report_and_the_json_have_the_same_content(run):
    result, *_ = run(errors_of({"no_teacher": 350, "uniform": 250, "stacking": 200}))
    text, values = page(Setup.task, result, FACTS), as_json(Setup.task, result, FACTS)
    assert "**Kept: stacking, kd_weight 0.5, temperature 2**, seed 0. **Teachers help here.**" in text
    assert "- accuracy on 600 held-out labels that it was chosen by: 0.833" in text
    assert "- accuracy on 50 test labels, which were not used to choose: 0.900 [0.880, 0.920]" in text
    assert "| **stacking, kd_weight 0.5, temperature 2** | 1 | 100 | 0.833 | 0.451 | 600 | kept |" in text
    assert "- Candidates are scored on 600 of validation. These students" in text
    assert "- Budget: 200 updates. All students took 280 updates" in text
    assert values["kept"] == {"candidate": "stacking, kd_weight 0.5, temperature 2", "seed": 0}
    assert values["verdict"] == verdict(Setup.task, result).replace("**", "")
    plain = next(row for row in values["candidates"] if row["policy"] == "no_teacher")
    mean, low, high = plain["minus_kept"]
    assert (mean, plain["compared_after"], plain["updates"], plain["labels"]) == (pytest.approx(-150 / 600), 60, 60, 600)
    assert low < mean < high < 0


def test_seeds_are_added_and_the_best_student_is_kept(run):
    def errors(candidate, seed, update):
        return {"stacking": 100, "no_teacher": 120}.get(candidate.policy, 300) - 10 * seed

    rungs = ((10, 7, 1), (30, 4, 1), (60, 3, 3), (100, 1, 3))
    result, taught, _ = run(errors, rungs, as_population=True)
    assert (result.kept.policy, result.seed) == ("stacking", 2)
    assert [stretch[1:] for stretch in taught if stretch[0].startswith("stacking")] == [
        ((0,), 0, 10),
        ((0,), 10, 30),
        ((0,), 30, 60),
        ((1, 2), 0, 60),
        ((0,), 60, 100),
        ((1, 2), 60, 100),
    ]
    assert len(result.last_result(result.kept).predictions["validation"]) == 3
    assert result.last_result(result.kept).score == pytest.approx(1 - (100 + 90 + 80) / 3 / 600)


@pytest.mark.parametrize("stop_at", [("uniform", 10), ("held_credit", 10), ("stacking", 60), ("stacking", 100)])
def test_a_race_that_was_stopped_goes_on_and_ends_the_same(run, stop_at, tmp_path):
    errors = errors_of({"no_teacher": 350, "uniform": 250, "stacking": 200, "held_credit": 260})
    whole, everything, _ = run(errors, folder=tmp_path / "whole")
    stopped, before, _ = run(errors, stop_at=stop_at)
    assert stopped is None
    result, after, _ = run(errors)
    assert before + after == everything
    assert page(Setup.task, result, FACTS).split("seconds")[0] == page(Setup.task, whole, FACTS).split("seconds")[0]


def test_students_are_not_saved_while_little_would_be_lost(run, tmp_path):
    """After a kill, only candidates that are still in the race are taught again what they had learned."""
    errors = errors_of({"no_teacher": 350, "uniform": 250, "stacking": 200, "held_credit": 260})
    whole, everything, _ = run(errors, folder=tmp_path / "whole", seconds=1.0)
    assert not (tmp_path / "whole" / "runs").exists()
    _, before, _ = run(errors, stop_at=("stacking", 60), seconds=1.0)
    result, after, progress = run(errors, seconds=1.0)
    assert page(Setup.task, result, FACTS).split("seconds")[0] == page(Setup.task, whole, FACTS).split("seconds")[0]
    again = [("stacking", 0, 30), ("uniform", 0, 30), ("no_teacher", 0, 30)]
    assert [(name.partition(",")[0], start, end) for name, _, start, end in after if start == 0] == again
    assert [stretch for stretch in before + after if stretch[2]] == [stretch for stretch in everything if stretch[2]]
    assert progress.updates == 3 * 30 + 40, "what is taught again is not counted"


def constant(knowing):
    """Return logits of students that predict class 1 for all; those of one policy are less sure of it where it is wrong."""

    def logits(run, split):
        labels = getattr(Setup.task, split).labels
        values = np.zeros((len(run.seeds), len(labels), 2))
        values[..., 1] = np.where(labels == 1, 2.0, 1.0) if run.candidate.policy == knowing else 1.0
        return values if run.update < 60 else FakeRun.logits(run, split)

    return logits


@pytest.mark.parametrize("knowing", ["stacking", "held_credit", "no_teacher"])
def test_while_all_students_predict_one_class_loss_decides(run, knowing, tmp_path):
    result, *_ = run(errors_of({knowing: 200}), logits=constant(knowing))
    assert [rung_result.score for rung_result in result.rungs[0]] == [0.5] * 7
    assert [rung[0].candidate.policy for rung in result.rungs] == [knowing] * 4
    text = page(Setup.task, result, FACTS)
    assert "After 30 updates every student still gave one answer to all, so loss decided." in text
    learned, *_ = run(errors_of({}), folder=tmp_path / "learned")
    assert "loss decided" not in page(Setup.task, learned, FACTS)


def test_a_candidate_whose_students_all_diverge_is_left_out(run):
    def errors(candidate, seed, update):
        return None if candidate.policy == "stacking" else 100

    result, *_ = run(errors)
    assert [candidate.policy for candidate in result.diverged] == ["stacking"]
    assert "| stacking, kd_weight 0.5, temperature 2 | – | – | diverged | – | – | – |" in page(Setup.task, result, FACTS)


def test_the_first_candidates_go_on_if_all_others_diverge(run):
    result, *_ = run(lambda candidate, seed, update: 100 if candidate.policy in ("no_teacher", "uniform") else None)
    assert {candidate.policy for candidate in result.diverged} >= {"stacking", "held_credit"}
    assert result.kept.policy in ("no_teacher", "uniform")


def test_teachers_are_not_compared_by_students_that_have_not_learned(run):
    result, *_ = run(lambda candidate, seed, update: 300)
    text = verdict(Setup.task, result)
    assert text.startswith("**The student has not learned.** Its accuracy of 0.500 is not above the 0.500 of one answer to all")


def test_teachers_are_not_compared_if_the_student_without_one_diverged(run):
    result, *_ = run(lambda candidate, seed, update: None if candidate.policy == "no_teacher" else 100)
    assert verdict(Setup.task, result) == "Whether the teachers help is not known: the student without a teacher diverged."


def test_the_page_names_the_splits_that_scored(run, monkeypatch):
    monkeypatch.setattr(Setup, "settings", {"updates": 100, "reward_ce": 0.5})
    monkeypatch.setattr(Setup, "task", replace(toy(), validation=toy().validation.take(np.arange(200))))
    result, *_ = run(errors_of({"no_teacher": 150}))
    assert "- Candidates are scored on 200 of validation. These students" in page(Setup.task, result, FACTS)


def test_a_race_in_which_all_diverge_names_the_fix(run):
    with pytest.raises(InputError, match="all students diverged; use a lower lr"):
        run(lambda candidate, seed, update: None)


def test_another_race_in_the_folder_is_refused(tmp_path):
    RaceState(tmp_path, {"a": 1, "b": 2}).write()
    with pytest.raises(InputError, match=r"started by another command \(other b\); delete it, or name another --out"):
        RaceState(tmp_path, {"a": 1, "b": 3})


@pytest.mark.parametrize("change", [lambda text: "{", lambda text: "[]", lambda text: text.replace('"update": 7', '"update": 8')])
def test_a_damaged_race_is_refused(tmp_path, change):
    race = RaceState(tmp_path, {"a": 1})
    race.entry(Candidate("uniform"), [0]).update = 7
    race.write()
    assert RaceState(tmp_path, {"a": 1}).entries[0].update == 7
    file = tmp_path / "race.json"
    file.write_text(change(file.read_text()))
    with pytest.raises(InputError, match="is damaged; delete the folder"):
        RaceState(tmp_path, {"a": 1})


def test_a_race_that_is_killed_while_it_saves_has_the_students_that_its_file_names(run, monkeypatch, tmp_path):
    """The students of a new rung do not replace those of the rung before until the file of the race is written."""
    errors = errors_of({"no_teacher": 350, "uniform": 250, "stacking": 200, "held_credit": 260})
    write, calls = RaceState.write, []

    def stopped(state):
        calls.append(state)
        if len(calls) == 17:  # each writes twice, its students and its scores: seven candidates, then the second of the second rung
            raise KeyboardInterrupt
        write(state)

    monkeypatch.setattr(RaceState, "write", stopped)
    assert run(errors)[0] is None
    state = RaceState(tmp_path / "race", {"a": 1})
    kept = [entry for entry in state.entries if state.folder_of(entry).exists()]
    assert sorted(entry.saved for entry in kept) == [10, 10, 10, 30]
    assert all((state.students_of(entry) / "state").read_text() == str(entry.saved) for entry in kept)
    monkeypatch.setattr(RaceState, "write", write)
    result, taught, _ = run(errors)
    assert result.kept.policy == "stacking"
    assert min(start for _, _, start, _ in taught) == 10
    assert len(list((tmp_path / "race" / "runs").glob("*/*"))) == 1, "only the last students of the best candidate stay"
