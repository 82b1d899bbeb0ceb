"""``kd-env distill --from``: the best kept student of a results folder becomes a checkpoint with a card, and nothing is taught."""

import json
import re
import shutil

import numpy as np
import pytest
import torch

from kd_env.benchmark import distill_kept, records, shared_trials
from kd_env.benchmark.kept_students import FOLDER
from kd_env.cli import invoke
from kd_env.teachers.checkpoint import CheckpointTeacher

pytestmark = pytest.mark.long

STUDENT = "tiny-bert(width=8,layers=1,dropout=0)"


@pytest.fixture(scope="module")
def results(own_data, make_checkpoint, tmp_path_factory):
    """A folder of ``kd-env run``: two policies, two seeds, all students kept."""
    place = tmp_path_factory.mktemp("results")
    teachers = ",".join(str(make_checkpoint(place / name, seed=seed)) for seed, name in enumerate(("one", "two")))
    options = ["--task", f"folder:{own_data}", "--teachers", teachers, "--student", STUDENT, "--updates", "20", "--seeds", "0-1"]
    more = [
        "--policy",
        "uniform",
        "--policy",
        "no_teacher",
        "--set",
        "kd_weight=0.5",
        "--keep",
        "all",
        "--workers",
        "1",
        "--quiet",
        "--out",
        str(place / "run"),
    ]
    assert invoke(["run", *options, *more]) == 0
    return place / "run"


@pytest.fixture(autouse=True)
def _nothing_is_taught(monkeypatch, results):
    monkeypatch.setattr(shared_trials, "run_trials", lambda *_: pytest.fail("nothing is taught"))


def best_of(results):
    return max(records.read(results), key=lambda record: record["validation"])


def error_of(arguments, capsys):
    capsys.readouterr()
    assert invoke(arguments) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


def test_the_best_student_on_validation_is_taken_as_it_is(results, own_task, tmp_path, capsys):
    out, best = tmp_path / "student", best_of(results)
    assert invoke(["distill", "--from", str(results), "--out", str(out)]) == 0
    output = capsys.readouterr()
    assert output.out == f"{out}\n"
    assert f"kept: {best['policy']} seed {best['seed']}, validation {best['validation']:.3f}, of 4 trials" in output.err
    assert {path.name for path in tmp_path.iterdir()} == {"student"}
    assert (out / "model.safetensors").read_bytes() == (results / FOLDER / best["trial"] / "model.safetensors").read_bytes()
    classes = CheckpointTeacher(str(out), own_task)(own_task.test.inputs).logits.argmax(1).numpy()
    assert own_task.score(classes, own_task.test.labels) == pytest.approx(best["test"])
    card = (out / "README.md").read_text()
    assert f"{'trained' if best['policy'] == 'no_teacher' else 'distilled'} by {best['policy']}\n" in card
    assert "with the best validation score of 4 students" in card
    for policy in ("uniform", "no_teacher"):
        runs = [record for record in records.read(results) if record["policy"] == policy]
        name = f"**{policy}**" if policy == best["policy"] else policy
        mean = float(np.mean([record["validation"] for record in runs]))
        assert re.search(rf"^\| {re.escape(name)} \| 2 \| {mean:.3f} \(2 seeds, no interval\) \|", card, re.MULTILINE)
    assert records.finished(out / "distillation") == records.finished(results)
    assert len(list((out / "distillation" / "traces").iterdir())) == 4
    assert invoke(["report", str(out / "distillation")]) == 0


def test_a_finished_folder_stays_and_a_stopped_command_begins_again(results, tmp_path, monkeypatch, capsys):
    out = tmp_path / "student"
    command = ["distill", "--from", str(results), "--out", str(out), "--quiet"]
    with monkeypatch.context() as patch:
        patch.setattr(distill_kept, "_copy_records", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        assert invoke(command) == 130
    assert not out.exists()
    assert invoke(command) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"student"}
    (out / "mark").touch()
    assert invoke(command) == 0
    assert (out / "mark").exists()
    (out / "trial.json").unlink()
    assert "student holds something that this command did not write, or an earlier state; name a new folder" in error_of(command, capsys)


def test_formats_and_trimming_work_on_it(results, own_task, tmp_path, capsys):
    out = tmp_path / "student"
    command = ["distill", "--from", str(results), "--out", str(out)]
    assert invoke([*command, "--trim-vocabulary", "--dtype", "float16"]) == 0
    assert "vocabulary: " in capsys.readouterr().err
    assert json.loads((out / "config.json").read_text())["dtype"] == "float16"
    student = CheckpointTeacher(str(out), own_task)
    classes = student(own_task.validation.inputs).logits.argmax(1).numpy()
    assert own_task.score(classes, own_task.validation.labels) == pytest.approx(best_of(results)["validation"], abs=0.02)


def test_only_one_of_several_students_can_be_named(results, own_data, tmp_path, capsys):
    command = ["distill", "--from", str(results), "--out", str(tmp_path / "student"), "--quiet"]
    assert f"holds no such student, but {STUDENT}" in error_of([*command, "--student", "tiny-bert"], capsys)
    assert "holds no student of it, but of folder:" in error_of([*command, "--task", "digits"], capsys)
    assert invoke([*command, "--student", STUDENT, "--task", f"folder:{own_data}"]) == 0


def test_several_tasks_need_a_name(results, tmp_path, capsys):
    copy = tmp_path / "run"
    shutil.copytree(results, copy)
    path = copy / FOLDER / best_of(results)["trial"] / "trial.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "task": "digits"}))
    error = error_of(["distill", "--from", str(copy), "--out", str(tmp_path / "student")], capsys)
    assert "holds students of several tasks; name one with --task: " in error
    assert "digits" in error


def test_what_was_not_kept_is_said(results, tmp_path, capsys):
    copy, out = tmp_path / "run", tmp_path / "student"
    shutil.copytree(results, copy)
    best = best_of(results)
    shutil.rmtree(copy / FOLDER / best["trial"])
    assert invoke(["distill", "--from", str(copy), "--out", str(out)]) == 0
    assert f"{best['policy']} seed {best['seed']} has a higher validation score ({best['validation']:.3f}) and was not kept" in " ".join(
        capsys.readouterr().err.split()
    )
    shutil.rmtree(copy / FOLDER)
    assert "students: no kept students; add --keep best to the kd-env run command" in error_of(
        ["distill", "--from", str(copy), "--out", str(tmp_path / "other")], capsys
    )


def test_data_that_have_changed_are_noticed(results, tmp_path, capsys):
    copy = tmp_path / "run"
    shutil.copytree(results, copy)
    folder = copy / FOLDER / best_of(results)["trial"]
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    save_file({name: torch.zeros_like(tensor) for name, tensor in tensors.items()}, folder / "model.safetensors", {"format": "pt"})
    error = error_of(["distill", "--from", str(copy), "--out", str(tmp_path / "student")], capsys)
    assert "the data of" in error
    assert "have changed; run kd-env run again" in error
    assert not (tmp_path / "student").exists()
