"""A race that was stopped goes on: no update is done twice, and a file that is damaged or of another race is refused."""

import pytest
from known_students import FACTS, Setup, errors_of, race_runner

from kd_env.benchmark.race.candidates import Candidate
from kd_env.benchmark.race.report import page
from kd_env.benchmark.race.state import RaceState
from kd_env.errors import InputError

pytestmark = pytest.mark.long


@pytest.fixture
def run(monkeypatch, tmp_path):
    return race_runner(monkeypatch, tmp_path)


@pytest.mark.parametrize("stop_at", [("uniform", 10), ("crossfit_credit", 10), ("stacking", 60), ("stacking", 100)])
def test_a_race_that_was_stopped_goes_on_and_ends_the_same(run, stop_at, tmp_path):
    errors = errors_of({"no_teacher": 350, "uniform": 250, "stacking": 200, "crossfit_credit": 260})
    whole, everything, _ = run(errors, folder=tmp_path / "whole")
    stopped, before, _ = run(errors, stop_at=stop_at)
    assert stopped is None
    result, after, _ = run(errors)
    assert before + after == everything
    assert page(Setup.task, result, FACTS).split("seconds")[0] == page(Setup.task, whole, FACTS).split("seconds")[0]


@pytest.mark.parametrize("as_population", [False, True])
@pytest.mark.parametrize("stop_at", [("no_teacher", 60), ("stacking", 60), ("stacking", 100)])
def test_seeds_that_a_later_rung_added_do_not_change_the_earlier_ones(run, stop_at, as_population, tmp_path):
    """Students of added seeds make fewer errors, so a ranking that counted them in the first rung would be another one."""

    def errors(candidate, seed, update):
        return {"stacking": 200, "no_teacher": 220, "uniform": 260}.get(candidate.policy, 240) - 100 * seed

    rungs = ((10, 7, 1), (30, 4, 1), (60, 3, 3), (100, 1, 3))
    whole, everything, _ = run(errors, rungs, folder=tmp_path / "whole", as_population=as_population)
    stopped, before, _ = run(errors, rungs, stop_at=stop_at, as_population=as_population)
    assert stopped is None
    result, after, _ = run(errors, rungs, as_population=as_population)
    assert before + after == everything
    assert [[entry.candidate.name for entry in rung] for rung in result.rungs] == [[e.candidate.name for e in rung] for rung in whole.rungs]
    assert page(Setup.task, result, FACTS).split("seconds")[0] == page(Setup.task, whole, FACTS).split("seconds")[0]


def test_a_student_that_diverged_late_counts_until_then_also_after_a_stop(run, tmp_path):
    def errors(candidate, seed, update):
        return {"uniform": 100, "no_teacher": 350}.get(candidate.policy, 300)

    late = {"late": "uniform, kd_weight 0.5, temperature 2"}
    whole, *_ = run(errors, folder=tmp_path / "whole", **late)
    assert [candidate.name for candidate in whole.diverged] == [late["late"]]
    run(errors, stop_at=("uniform", 100), **late)
    result, *_ = run(errors, **late)
    text = page(Setup.task, result, FACTS)
    assert text.split("seconds")[0] == page(Setup.task, whole, FACTS).split("seconds")[0]
    assert text.count(f"| {late['late']} |") == 1
    assert len(result.rungs[0]) == 7


def test_students_are_not_saved_while_little_would_be_lost(run, tmp_path):
    """After a kill, only candidates that are still in the race are taught again what they had learned."""
    errors = errors_of({"no_teacher": 350, "uniform": 250, "stacking": 200, "crossfit_credit": 260})
    whole, everything, _ = run(errors, folder=tmp_path / "whole", seconds=1.0)
    assert not (tmp_path / "whole" / "runs").exists()
    _, before, _ = run(errors, stop_at=("stacking", 60), seconds=1.0)
    result, after, progress = run(errors, seconds=1.0)
    assert page(Setup.task, result, FACTS).split("seconds")[0] == page(Setup.task, whole, FACTS).split("seconds")[0]
    again = [("stacking", 0, 30), ("uniform", 0, 30), ("no_teacher", 0, 30)]
    assert [(name.partition(",")[0], start, end) for name, _, start, end in after if start == 0] == again
    assert [stretch for stretch in before + after if stretch[2]] == [stretch for stretch in everything if stretch[2]]
    assert progress.updates == 3 * 30 + 40, "what is taught again is not counted"


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
    errors = errors_of({"no_teacher": 350, "uniform": 250, "stacking": 200, "crossfit_credit": 260})
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
