"""A race of students with known predictions: which candidates go on, which is kept, and what its report says of the teachers."""

from dataclasses import replace

import numpy as np
import pytest
from known_students import FACTS, FakeRun, Setup, errors_of, race_runner, toy

from kd_env.benchmark.race.candidates import candidates_and_cost
from kd_env.benchmark.race.report import as_json, page, verdict
from kd_env.errors import InputError

pytestmark = pytest.mark.long


@pytest.fixture
def run(monkeypatch, tmp_path):
    return race_runner(monkeypatch, tmp_path)


def test_the_best_go_on_and_nothing_is_taught_twice(run):
    result, taught, progress = run(errors_of({"no_teacher": 350, "uniform": 250, "stacking": 200, "crossfit_credit": 260}))
    assert candidates_and_cost(Setup.task, 2, {})[0] == 7
    assert result.kept.policy == "stacking"
    assert result.student == ("stacking, kd_weight 0.5, temperature 2", 0)
    assert [[rung_result.candidate.policy for rung_result in rung] for rung in result.rungs] == [
        ["stacking", *["uniform"] * 3, "crossfit_credit", "camkd_logits", "no_teacher"],
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


def constant(knowing):
    """Return logits of students that predict class 1 for all; those of one policy are less sure of it where it is wrong."""

    def logits(run, split):
        labels = getattr(Setup.task, split).labels
        values = np.zeros((len(run.seeds), len(labels), 2))
        values[..., 1] = np.where(labels == 1, 2.0, 1.0) if run.candidate.policy == knowing else 1.0
        return values if run.update < 60 else FakeRun.logits(run, split)

    return logits


@pytest.mark.parametrize("knowing", ["stacking", "crossfit_credit", "no_teacher"])
def test_while_all_students_predict_one_class_loss_decides(run, knowing, tmp_path):
    result, *_ = run(errors_of({knowing: 200}), logits=constant(knowing))
    assert [rung_result.score for rung_result in result.rungs[0]] == [0.5] * 7
    assert [rung[0].candidate.policy for rung in result.rungs] == [knowing] * 4
    text = page(Setup.task, result, FACTS)
    assert "After 30 updates every student still predicted one class for every example, so loss decided." in text
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
    assert {candidate.policy for candidate in result.diverged} >= {"stacking", "crossfit_credit"}
    assert result.kept.policy in ("no_teacher", "uniform")


def test_teachers_are_not_compared_by_students_that_have_not_learned(run):
    result, *_ = run(lambda candidate, seed, update: 300)
    text = verdict(Setup.task, result)
    assert text.startswith("**The student has not learned.** Its accuracy of 0.500 is not above 0.500, the score of predicting one class")


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
