"""The loop over validation trials, with trials whose scores are a formula in place of students."""

import math
import os
import re
import subprocess
import sys

import pytest

from kd_env.benchmark import records
from kd_env.benchmark.suite_parts import Part
from kd_env.benchmark.tuning import study, tune
from kd_env.benchmark.tuning.space import Space
from kd_env.errors import InputError
from kd_env.paths import claim_folder
from kd_env.policies import Choice, Range

PART = Part("digits", ("uniform", "reinforce"), updates=9)


def score(trial):
    """Best at temperature 5."""
    return 0.9 - abs(math.log(trial.resolved.settings.distillation.temperature / 5)) / 10 + 0.001 * (trial.seed - 100)


def is_search(trial):
    return trial.seed in (100, 101)


class Runs:
    """Writes records with scores by formula, and counts."""

    def __init__(self, stop_in=None, of=score):
        self.rounds, self.trials, self._stop_in, self._of = 0, [], stop_in, of

    def __call__(self, trials, directory, population, line):
        self.rounds += 1
        finished = records.finished(directory)
        new = [trial for trial in trials if trial.id not in finished]
        for number, trial in enumerate(new):
            if self.rounds == self._stop_in and number == 1:
                raise KeyboardInterrupt
            value = self._of(trial)
            diverged, curve = value is None, [{"update": 9, "validation": value}]
            fields = {"trial": trial.id, "validation": value, "diverged": diverged, "curve": curve}
            records.append(directory, dict.fromkeys(records.FIELDS) | fields)
            self.trials.append(trial)


@pytest.fixture(autouse=True)
def _records_of_any_type(monkeypatch):
    monkeypatch.setattr(records, "other_type", lambda record: "")


def tuned(out, trials, runs):
    return tune.tune(PART, trials, out, "a command", runs)


@pytest.mark.long
def test_every_policy_has_the_same_number_of_trials_the_first_as_it_is_and_all_without_test(tmp_path):
    runs = Runs()
    result = tuned(tmp_path, 4, runs)
    for policy in PART.policies:
        trials = [trial for trial in runs.trials if trial.policy == policy and is_search(trial)]
        assert [trial.seed for trial in trials] == [100, 101] * 4
        assert (trials[0].tuned.options, trials[0].tuned.settings) == ({}, {})
        assert len({str(trial.tuned) for trial in trials}) == 4
    assert not any(trial.test for trial in runs.trials)
    assert {trial.suite for trial in runs.trials} == {"tuning"}
    assert (result.task, result.teachers, result.student, result.updates) == ("digits", "digits/experts", "mlp(width=24)", 9)
    assert (result.trials, result.seeds, result.command) == (4, (100, 101, 102, 103, 104, 105), "a command")


@pytest.mark.long
def test_the_configuration_with_the_highest_mean_is_found(tmp_path):
    runs = Runs()
    result = tuned(tmp_path, 10, runs)
    untuned = 0.9 - math.log(5 / 2) / 10 + 0.0035  # on the seeds 102 to 105
    for policy in PART.policies:
        means = {}
        for trial in runs.trials:
            if trial.policy == policy and is_search(trial):
                means.setdefault(str(trial.tuned), []).append(score(trial))
        best, first = result.scores[policy]
        assert best == pytest.approx(max(sum(values) / 2 for values in means.values()) + 0.003, abs=1e-4)
        assert first == pytest.approx(untuned, abs=1e-4)
        assert best > first + 0.05
        assert abs(result.policies[policy].settings["temperature"] - 5) < 2


@pytest.mark.long
def test_a_search_that_was_stopped_ends_as_one_that_was_not(tmp_path):
    whole = Runs()
    expected = tuned(tmp_path / "whole", 7, whole)
    with pytest.raises(KeyboardInterrupt):
        tuned(tmp_path / "stopped", 7, first := Runs(stop_in=7))
    assert tuned(tmp_path / "stopped", 7, second := Runs()) == expected
    assert second.rounds == 2, "the last round, and the comparison on other seeds"
    assert [trial.id for trial in first.trials + second.trials] == [trial.id for trial in whole.trials], "and nothing ran twice"
    assert tuned(tmp_path / "whole", 7, again := Runs()) == expected
    assert again.trials == []


@pytest.mark.parametrize("lead", [0.01, -0.01])
def test_a_configuration_that_loses_on_other_seeds_is_not_taken(lead, tmp_path):
    """All configurations beat the untuned policy on the seeds of the search, and lead by ``lead`` on the others."""
    runs = Runs(of=lambda trial: 0.5 + (0.0 if not trial.tuned.settings else 0.1 if is_search(trial) else lead))
    result = tuned(tmp_path, 3, runs)
    for policy in PART.policies:
        assert bool(result.policies[policy].settings) is (lead > 0.0)
        assert result.scores[policy] == pytest.approx((0.5 + max(lead, 0.0), 0.5))
        checks = [trial for trial in runs.trials if trial.policy == policy and not is_search(trial)]
        assert [trial.seed for trial in checks] == [102, 103, 104, 105] * 2
    assert not any(trial.test for trial in runs.trials)


@pytest.mark.long
def test_more_trials_continue_the_search_and_fewer_look_at_its_beginning(tmp_path):
    first = tuned(tmp_path, 3, Runs())
    more = tuned(tmp_path, 6, runs := Runs())
    assert runs.rounds == 4
    assert tuned(tmp_path / "new", 6, Runs()) == more
    assert tuned(tmp_path, 3, Runs(stop_in=1)) == first, "nothing is left to run"


@pytest.mark.long
def test_a_configuration_whose_student_diverges_is_never_the_best(tmp_path):
    result = tuned(tmp_path, 4, Runs(of=lambda trial: None if trial.tuned.settings and trial.seed == 101 else 0.1))
    assert all(not each.settings and not each.options for each in result.policies.values())
    assert set(result.scores.values()) == {(0.1, 0.1)}


def test_settings_of_a_part_are_part_of_the_configuration(tmp_path):
    part = Part("digits", ("uniform",), settings={"kd_weight": 0.5, "batch_size": 16}, updates=9)
    result = tune.tune(part, 2, tmp_path, "", Runs(of=lambda trial: trial.seed if not trial.tuned.settings else 0.0))
    assert result.policies["uniform"].settings == {"kd_weight": 0.5, "batch_size": 16}


def test_the_budget_of_a_part_is_stated_wherever_it_is_set(tmp_path):
    part = Part("digits", ("uniform",), settings={"updates": 9, "student": "mlp(width=8)"})
    result = tune.tune(part, 2, tmp_path, "", Runs())
    assert (result.updates, result.student) == (9, "mlp(width=8)")


NAME = """
from kd_env.benchmark.suite_parts import Part
from kd_env.benchmark.tuning.space import space_of
from kd_env.benchmark.tuning.tune import _study_name
trial = Part("digits", ("reinforce",)).trials("tuning", [100], "")[0]
print(_study_name(trial, space_of(trial)))
"""


@pytest.mark.long
def test_another_process_finds_the_same_study(capsys):
    """With another order of sets."""
    exec(NAME, {})
    here = capsys.readouterr().out
    assert here.strip()
    seeds = {"1", "2"} - {os.environ.get("PYTHONHASHSEED")}
    environment = os.environ | {"PYTHONHASHSEED": min(seeds)}
    assert subprocess.run([sys.executable, "-c", NAME], env=environment, check=True, capture_output=True, text=True).stdout == here


def test_values_of_a_choice_are_tried_as_they_are_and_those_of_a_range_with_few_digits(tmp_path):
    entries = {"power": Choice((0.03125, 0.0078125)), "rate": Range(0.001, 1.0, log=True), "narrow": Range(1.23456, 1.23457)}
    start = {"power": 0.03125, "rate": 0.1, "narrow": 1.23456}
    searched = study.Study(tmp_path, "any", Space(entries, start, frozenset(entries), "adam"))
    for number in range(6):
        values = searched.propose()
        assert values["power"] in (0.03125, 0.0078125)
        assert values["rate"] == float(f"{values['rate']:.3g}")
        assert 1.23456 <= values["narrow"] <= 1.23457
        searched.add(values, number / 10)
    assert searched.finished == 6


def test_two_processes_do_not_tune_into_one_folder(tmp_path):
    with claim_folder(tmp_path / "tuning", "tuning into it"), pytest.raises(InputError, match="is tuning into it; wait for it"):
        tuned(tmp_path, 2, Runs())


def test_a_file_that_holds_no_studies_is_refused(tmp_path):
    (tmp_path / "tuning").mkdir()
    (tmp_path / "tuning" / study.FILE).write_bytes(b"not a data base" * 100)
    with pytest.raises(InputError, match=re.escape("study.db: not a file of studies")):
        tuned(tmp_path, 2, Runs())


def test_without_optuna_the_error_says_how_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "optuna", None)
    with pytest.raises(InputError, match=re.escape("pip install 'kd-env[tune]'")):
        tuned(tmp_path, 2, Runs())


def test_the_seeds_of_a_report_are_not_those_of_tuning():
    tune.require_fresh(range(100))
    for seed in range(100, 106):
        with pytest.raises(InputError, match=f"seed {seed}: policies are tuned with seeds 100, 101, 102, 103, 104, 105; give others"):
            tune.require_fresh([0, seed])
