"""``kd-env run --keep``: students are kept before their records are written, the best of each task and student, or all."""

import json
import re

import pytest

from kd_env.benchmark import records, shared_trials
from kd_env.benchmark.kept_students import FILE, FOLDER, KeptStudent, delete_others, is_kept, kept_students, with_missing_students
from kd_env.benchmark.progress import Progress
from kd_env.benchmark.run import run
from kd_env.benchmark.trial import Trial
from kd_env.cli import invoke
from kd_env.errors import InputError
from kd_env.teachers.checkpoint import CheckpointTeacher

STUDENT = "tiny-bert(width=8,layers=1,dropout=0)"


@pytest.fixture(scope="module")
def teacher(make_checkpoint, tmp_path_factory):
    return str(make_checkpoint(tmp_path_factory.mktemp("pool") / "one"))


@pytest.fixture
def trials(own_data, teacher):
    def make(*seeds, keep="best", student=STUDENT):
        settings = {"updates": 4, "student": student, "batch_size": 8}
        return [Trial(f"folder:{own_data}", "uniform", seed, teacher, settings=settings, test=False, keep=keep) for seed in seeds]

    return make


def in_folder(directory):
    return sorted(path.name for path in (directory / FOLDER).iterdir())


def write(directory, trial, validation, keep="best", task="t", student="s"):
    (directory / FOLDER / trial).mkdir(parents=True)
    values = {"trial": trial, "task": task, "student": student, "validation": validation, "keep": keep}
    (directory / FOLDER / trial / FILE).write_text(json.dumps(values))


def test_only_the_best_of_each_task_and_student_stays(tmp_path):
    write(tmp_path, "a", 0.5)
    write(tmp_path, "b", 0.7)
    write(tmp_path, "c", 0.7)
    write(tmp_path, "d", 0.6, keep="all")
    write(tmp_path, "e", 0.1, student="other")
    write(tmp_path, "running", 0.2)
    write(tmp_path, "damaged", 0.2)
    (tmp_path / FOLDER / "damaged" / FILE).write_text("{")
    finished = {"a", "b", "c", "d", "e", "damaged"}
    delete_others(tmp_path, finished)
    assert in_folder(tmp_path) == ["b", "d", "damaged", "e", "running"], "of equal ones the first; none whose trial is not recorded"
    assert kept_students(tmp_path, finished)[0] == KeptStudent("b", "t", "s", 0.7, "best")


@pytest.mark.long
def test_a_run_keeps_the_best_student_on_validation(trials, own_task, tmp_path):
    run(trials(0, 1, 2), tmp_path, Progress(quiet=True))
    best = max(records.read(tmp_path), key=lambda record: record["validation"])
    assert in_folder(tmp_path) == [best["trial"]]
    student = CheckpointTeacher(str(tmp_path / FOLDER / best["trial"]), own_task.development(), "student")
    classes = student(own_task.validation.inputs).logits.argmax(1).numpy()
    assert own_task.score(classes, own_task.validation.labels) == pytest.approx(best["validation"])


@pytest.mark.long
def test_all_and_none(trials, tmp_path):
    run(trials(0, keep="none"), tmp_path, Progress(quiet=True))
    assert not (tmp_path / FOLDER).exists()
    run(trials(1, 2, keep="all"), tmp_path, Progress(quiet=True))
    assert in_folder(tmp_path) == sorted(trial.id for trial in trials(1, 2))
    run(trials(3), tmp_path, Progress(quiet=True))
    assert set(in_folder(tmp_path)) >= {trial.id for trial in trials(1, 2)}, "keep='best' deletes nothing that keep='all' kept"


def test_students_that_are_no_transformers_models_are_left_out(trials, tmp_path):
    digits = [Trial("digits", "uniform", 0, settings={"updates": 2, "student": "mlp(width=8)", "batch_size": 8}, test=False, keep="all")]
    run(digits, tmp_path, Progress(quiet=True))
    assert not (tmp_path / FOLDER).exists()
    with pytest.raises(InputError, match=r"student 'mlp\(width=8\)' is not a Transformers model.*or a checkpoint; or --keep none"):
        with_missing_students(digits, tmp_path)


def test_of_equal_students_none_runs_again(trials, tmp_path, monkeypatch):
    (first, second) = sorted(trials(0, 1), key=lambda trial: trial.id)
    equal = [
        {"trial": trial.id, "diverged": False, "env": None, "task": "t", "student": STUDENT, "validation": 0.7} for trial in (second, first)
    ]
    monkeypatch.setattr(records, "finished", lambda _: {first.id, second.id})
    monkeypatch.setattr(records, "read", lambda _: equal)
    write(tmp_path, first.id, 0.7)
    write(tmp_path, second.id, 0.7)
    delete_others(tmp_path, {first.id, second.id})
    assert in_folder(tmp_path) == [first.id]
    assert not any(trial.again for trial in with_missing_students(trials(0, 1), tmp_path))


@pytest.mark.long
def test_finished_trials_run_again_for_a_missing_student_if_asked(trials, tmp_path):
    run(trials(0, 1, keep="none"), tmp_path, Progress(quiet=True))
    before = {record["trial"]: record["validation"] for record in records.read(tmp_path)}
    run(trials(0, 1), tmp_path, Progress(quiet=True))
    assert not (tmp_path / FOLDER).exists(), "not without --keep"
    marked = with_missing_students(trials(0, 1, 2), tmp_path)
    best = max(before, key=before.get)
    assert [trial.id for trial in marked if trial.again] == [best]
    run([trial for trial in marked if trial.seed < 2], tmp_path, Progress(quiet=True))
    assert in_folder(tmp_path) == [best]
    assert {record["trial"]: record["validation"] for record in records.read(tmp_path)} == before
    assert not any(trial.again for trial in with_missing_students(trials(0, 1), tmp_path))
    assert [trial.again for trial in with_missing_students(trials(0, 1, keep="all"), tmp_path)].count(True) == 1


@pytest.mark.long
def test_a_student_is_saved_before_its_record_is_written(trials, tmp_path, monkeypatch):
    def stop(directory, *written):
        assert all(is_kept(directory, record["trial"]) for record in written)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shared_trials.records, "append", stop)
        with pytest.raises(KeyboardInterrupt):
            run(trials(0), tmp_path, Progress(quiet=True))
    assert records.finished(tmp_path) == set()
    run(trials(0), tmp_path, Progress(quiet=True))
    assert in_folder(tmp_path) == [trials(0)[0].id]


@pytest.mark.long
def test_a_population_keeps_its_best(trials, tmp_path):
    run(trials(0, 1), tmp_path, Progress(quiet=True), population=2)
    best = max(records.read(tmp_path), key=lambda record: record["validation"])
    assert in_folder(tmp_path) == [best["trial"]]


@pytest.mark.long
def test_an_unset_student_is_said_with_its_size_beside_the_teachers(own_data, teacher, tmp_path, capsys):
    options = ["--task", f"folder:{own_data}", "--teachers", teacher, "--updates", "2", "--policy", "uniform", "--seeds", "0"]
    assert invoke(["run", *options, "--workers", "1", "--out", str(tmp_path / "run")]) == 0
    error = " ".join(capsys.readouterr().err.split())
    assert re.search(r"default student: tiny-bert\S* with [\d,]+ parameters; teacher one has [\d,]+; --student selects another", error)
    assert f"kd-env distill --from {tmp_path / 'run'} --out student makes a checkpoint" in error


@pytest.mark.long
@pytest.mark.parametrize(("keep", "number"), [([], 1), (["--keep", "best"], 1), (["--keep", "all"], 2), (["--keep", "none"], 0)])
def test_the_command_keeps_the_best_by_default(own_data, teacher, tmp_path, keep, number, capsys):
    options = ["--task", f"folder:{own_data}", "--teachers", teacher, "--student", STUDENT, "--updates", "2", "--policy", "uniform"]
    more = ["--seeds", "0-1", "--workers", "1", "--quiet", *keep, "--out", str(tmp_path / "run")]
    assert invoke(["run", *options, *more]) == 0
    assert len(list((tmp_path / "run").glob(f"{FOLDER}/*"))) == number
