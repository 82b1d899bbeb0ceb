"""``kd-env distill`` writes a checkpoint that predicts what its student predicted, and a card with the numbers of the records."""

import re
import shlex
import shutil
import signal

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import pipeline

from kd_env import tasks
from kd_env.bank.bank import open_bank
from kd_env.benchmark import distill as distill_module
from kd_env.benchmark import records
from kd_env.benchmark.progress import Progress
from kd_env.cli import invoke
from kd_env.models.encode import encode
from kd_env.models.networks import build
from kd_env.paths import claim
from kd_env.teachers import load_pool
from kd_env.teachers.checkpoint import CheckpointTeacher

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def teachers(make_checkpoint, tmp_path_factory):
    place = tmp_path_factory.mktemp("pool")
    return ",".join(str(make_checkpoint(place / name, seed=seed)) for seed, name in enumerate(("one", "two")))


def words(own_data, teachers, out, *more):
    options = ["--task", f"folder:{own_data}", "--policy", "uniform", "--teachers", teachers, "--updates", "8", "--seeds", "0-1", "--quiet"]
    return ["distill", *options, "--out", str(out), *map(str, more)]


@pytest.fixture
def runs(monkeypatch):
    """The finished runs, by seed."""
    finished, save = {}, distill_module._save

    def keep(partial, trial, run):
        finished[trial.seed] = run
        save(partial, trial, run)

    monkeypatch.setattr(distill_module, "_save", keep)
    return finished


@pytest.mark.parametrize("student", ["tiny-bert(width=16,layers=1,dropout=0)", "{teacher}(layers=0;2)"])
def test_the_checkpoint_predicts_what_the_student_predicted(student, own_data, own_task, teachers, runs, tmp_path, capsys):
    student, out = student.format(teacher=teachers.split(",")[0]), tmp_path / "student"
    assert invoke(words(own_data, teachers, out, "--student", student, "--set", "knowledge=response,layer")) == 0
    assert capsys.readouterr() == (f"{out}\n", "")
    assert {path.name for path in tmp_path.iterdir()} == {"student"}
    written = {record["seed"]: record for record in records.read(out / "distillation")}
    best = max(written, key=lambda seed: written[seed]["validation"])
    run, texts = runs[best], own_task.test.inputs[:40]
    expected = run.student.predict(run.data.read(texts))
    logits = CheckpointTeacher(str(out), own_task)(texts).logits
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-4)
    answers = pipeline("text-classification", model=str(out), device="cpu")(texts.tolist())
    assert [answer["label"] for answer in answers] == [own_task.class_names[number] for number in expected.argmax(1)]
    assert [answer["score"] for answer in answers] == pytest.approx(expected.softmax(1).amax(1).tolist(), abs=1e-4)


def test_the_card_has_the_numbers_of_the_records(own_data, own_task, teachers, tmp_path, monkeypatch):
    out = tmp_path / "student"
    typed = words(own_data, teachers, out, "--student", "tiny-bert(width=16,layers=1,dropout=0)")
    monkeypatch.setattr("sys.argv", ["kd-env", *typed])
    assert invoke(typed) == 0
    card, written = (out / "README.md").read_text(), records.read(out / "distillation")
    test = [record["test"] for record in written]
    assert len(test) == 2
    assert f"| {np.mean(test):.3f} (2 seeds, no interval) |" in card
    best = max(written, key=lambda record: record["validation"])
    assert f"this student (seed {best['seed']})" in card
    count = sum(parameter.numel() for parameter in build("tiny-bert(width=16,layers=1,dropout=0)", own_task, 0).parameters())
    assert f"| this student | {best['test']:.3f} | {count:,} | {4e-6 * count:.1f} | " in card
    for teacher in load_pool(teachers, own_task).teachers:
        score = float((teacher(own_task.test.inputs).logits.argmax(1).numpy() == own_task.test.labels).mean())
        assert re.search(rf"\| {teacher.name} \| {score:.3f} \| [\d,]+ \| 0\.0 \| \d+\.\d \|", card)
    assert card.startswith("---\nlibrary_name: transformers\npipeline_tag: text-classification\ntags:\n- knowledge-distillation\n")
    assert "Classes: neg, pos." in card
    assert own_task.notes[0] in card
    policy = best["policy"]
    assert f"The policy\n`{policy}`, which reads {best['access']}, weighed the teachers of each example." in card
    assert (f"`{policy}` uses {best['reward_labels']} labels of the reward split." in card) == ("reward" in best["access"])
    assert f"```\n{shlex.join(['kd-env', *typed])}\n```" in card


def test_a_stopped_command_resumes_and_a_finished_one_changes_nothing(own_data, teachers, runs, tmp_path, monkeypatch, capsys):
    out, append = tmp_path / "student", records.append
    command = words(own_data, teachers, out, "--student", "tiny-bert(width=16,layers=1,dropout=0)")

    def stop(directory, record):
        if record["seed"] == 1:
            raise KeyboardInterrupt
        append(directory, record)

    with monkeypatch.context() as patch:
        patch.setattr(records, "append", stop)
        assert invoke(command) == 130
    assert not out.exists()
    runs.clear()
    assert invoke([*command, "--set", "temperature=3"]) == 2
    assert "started by another command" in capsys.readouterr().err
    assert invoke(command) == 0
    assert list(runs) == [1], "seed 0 is not run again"
    runs.clear()
    before = (out / "README.md").read_bytes()
    assert invoke(command) == 0
    assert not runs
    assert (out / "README.md").read_bytes() == before
    assert invoke(["report", str(out / "distillation")]) == 0


@pytest.fixture
def interruptible():
    """SIGINT interrupts, also if the tests run in the background of a shell, which ignores it there."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_a_stopped_trial_continues_from_its_checkpoint(own_data, teachers, tmp_path, monkeypatch):
    out, updates = tmp_path / "student", []
    command = words(own_data, teachers, out, "--student", "tiny-bert(width=16,layers=1,dropout=0)", "--seeds", "0")

    def advance(progress, policy, seed, number, validation):
        updates.append(number)
        if len(updates) == 5:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Progress, "advance", advance)
    assert invoke(command) == 130
    assert updates == [1] * 5
    assert invoke(command) == 0
    assert updates[5:] == [5, 1, 1, 1], "the five updates before the stop are not made again"
    (stopped,) = records.read(out / "distillation")
    assert not (out / "distillation" / "checkpoints").exists()
    assert invoke([*command[:-2], "--seeds", "0", "--out", str(tmp_path / "whole")]) == 0
    (whole,) = records.read(tmp_path / "whole" / "distillation")
    for name in ("test", "validation", "curve"):
        assert stopped[name] == whole[name]


def test_two_commands_do_not_write_one_folder(own_data, teachers, tmp_path, capsys):
    out = tmp_path / "student"
    with claim(tmp_path / ".student.lock"):
        assert invoke(words(own_data, teachers, out, "--student", "tiny-bert(width=16,layers=1,dropout=0)")) == 2
    assert "is distilling into it; wait for it, or name another folder" in capsys.readouterr().err


def test_a_race_that_was_started_is_not_deleted(own_data, teachers, tmp_path, capsys):
    race = tmp_path / ".student.partial" / "race.json"
    race.parent.mkdir()
    race.write_text("{}")
    assert invoke(words(own_data, teachers, tmp_path / "student", "--student", "tiny-bert(width=16,layers=1,dropout=0)")) == 2
    assert "a race was started there; leave --policy out to continue it, delete the folder" in capsys.readouterr().err
    assert race.exists()


def test_a_teacher_that_has_changed_is_another_trial(own_data, teachers, make_checkpoint, tmp_path, capsys):
    folder = tmp_path / "teacher"
    shutil.copytree(teachers.split(",")[0], folder)
    command = words(own_data, str(folder), tmp_path / "student", "--student", "tiny-bert(width=16,layers=1,dropout=0)", "--seeds", "0")
    assert invoke(command) == 0
    make_checkpoint(folder, seed=7)
    assert invoke(command) == 2
    assert "holds a student of other trials (" in capsys.readouterr().err


def test_images_are_distilled_too(tmp_path):
    out = tmp_path / "student"
    options = ["--task", "digits", "--teachers", "digits/experts/upright", "--policy", "uniform", "--updates", "4", "--quiet"]
    assert invoke(["distill", *options, "--student", "tiny-vit(width=8,layers=1)", "--out", str(out)]) == 0
    task = tasks.load("digits")
    record = records.read(out / "distillation")[0]
    logits = CheckpointTeacher(str(out), task)(task.test.inputs).logits
    assert float((logits.argmax(1).numpy() == task.test.labels).mean()) == pytest.approx(record["test"])
    assert (out / "model.safetensors").stat().st_mode == (out / "config.json").stat().st_mode
    grey = Image.fromarray((task.test.inputs[0, 0] * 255).round().astype(np.uint8))  # a pipeline gives its model three channels
    scores = {answer["label"]: answer["score"] for answer in pipeline("image-classification", model=str(out))(grey, top_k=10)}
    expected = dict(zip(task.class_names, logits[0].softmax(0).tolist(), strict=True))
    assert scores == pytest.approx(expected, abs=0.002), "up to the rounding of pixels to bytes"


def test_a_bank_in_half_precision_teaches(own_data, teachers, tmp_path, capsys):
    options = ["--task", f"folder:{own_data}", "--teachers", teachers, "--quiet"]
    assert invoke(["bank", *options, "--half", "--out", str(tmp_path / "bank")]) == 0
    more = ["--policy", "uniform", "--updates", "4", "--seeds", "0", "--student", "tiny-bert(width=16,layers=1)", "--workers", "1"]
    assert invoke(["run", *options, *more, "--bank", str(tmp_path / "bank"), "--out", str(tmp_path / "run")]) == 0
    task = tasks.load(f"folder:{own_data}")
    record = records.read(tmp_path / "run")[0]
    assert record["bank"] == open_bank(task, load_pool(teachers, task), tmp_path / "bank").fingerprint


def test_a_checkpoint_s_student_in_a_run_replays(own_data, teachers, tmp_path, capsys):
    student = f"{teachers.split(',')[0]}(layers=0;1,dropout=0.1)"
    options = ["--task", f"folder:{own_data}", "--teachers", teachers, "--quiet", "--policy", "reinforce", "--policy", "most_confident"]
    more = ["--updates", "4", "--seeds", "0", "--student", student, "--workers", "1", "--out", str(tmp_path / "run")]
    assert invoke(["run", *options, *more]) == 0
    capsys.readouterr()
    for record in records.read(tmp_path / "run"):
        assert record["student"] == student
        assert invoke(["replay", str(tmp_path / "run"), record["trial"]]) == 0, capsys.readouterr().out


def test_built_in_students_read_ids_and_mask(own_task):
    network = build("tiny-bert(dropout=0)", own_task, 0)
    inputs = encode(own_task, own_task.train.inputs[:5])
    assert set(inputs) == {"input_ids", "attention_mask"}
    assert network(**inputs).logits.shape == (5, 2)
