"""Convolutional networks from end to end: taught teachers, distilled and kept students, their files, and seeds that are run one by one."""

import dataclasses
import json

import numpy as np
import pytest
import torch

import kd_env
from kd_env import tasks
from kd_env.benchmark import records
from kd_env.benchmark.progress import Progress
from kd_env.benchmark.race import candidates
from kd_env.benchmark.run import _together, run
from kd_env.benchmark.trial import Trial
from kd_env.cli import invoke
from kd_env.errors import InputError
from kd_env.interrupts import CHECKPOINT_MINUTES
from kd_env.models import onnx_export
from kd_env.models.convolutional import load
from kd_env.teachers import finetune_loop, load_pool
from kd_env.teachers.checkpoint import CheckpointTeacher
from kd_env.teachers.finetune import finetune
from kd_env.teachers.finetune_config import FinetuneConfig
from kd_env.teachers.teacher import classifiers

pytestmark = pytest.mark.long

STUDENT = "resnet8(width=2)"


@pytest.fixture(scope="module")
def digits():
    return tasks.load("digits")


@pytest.fixture(scope="module")
def taught(digits, tmp_path_factory):
    """A resnet8 that was taught the digits for a few epochs."""
    return finetune(digits, FinetuneConfig("resnet8(width=4)", epochs=4, seed=1), tmp_path_factory.mktemp("taught") / "resnet8")


def test_a_taught_network_knows_its_task(digits, taught):
    teacher = CheckpointTeacher(str(taught), digits)
    output = teacher(digits.validation.inputs)
    assert (output.logits.argmax(1).numpy() == digits.validation.labels).mean() > 0.85
    assert output.maps.shape == (800, 16, 2, 2)
    weight, bias = classifiers(load_pool(str(taught), digits))[0]
    torch.testing.assert_close(output.features @ weight.T + bias, output.logits)
    history = json.loads((taught / "teaching.json").read_text())["history"]
    assert [entry["epoch"] for entry in history] == [1, 2, 3, 4]
    assert json.loads((taught / "teaching.json").read_text())["lr"] == 0.05


@pytest.mark.parametrize(("model", "epochs"), [("vgg8(width=1)", 6), ("tiny-vit(width=8,layers=1)", 3)])
def test_teaching_by_sgd_goes_on_to_the_end_of_the_schedule_and_keeps_the_best_epoch(digits, tmp_path, monkeypatch, model, epochs):
    few = dataclasses.replace(digits, train=digits.train.take(np.arange(100)))
    losses = iter(range(1, 100))  # the held-out loss rises from the first epoch on
    monkeypatch.setattr(finetune_loop.Student, "evaluate", lambda self, *arguments: (np.array([next(losses)]), np.array([0.5])))
    out = finetune(few, FinetuneConfig(model, epochs=6), tmp_path / "out")
    history = json.loads((out / "teaching.json").read_text())["history"]
    assert [entry["held_out_loss"] for entry in history] == list(range(1, epochs + 1))
    if model.startswith("vgg8"):
        assert int(load(out).body[0][1].num_batches_tracked) == 2, "84 examples are two updates of the first epoch"


def test_teaching_that_is_stopped_ends_in_the_same_weights(digits, tmp_path, monkeypatch):
    few = dataclasses.replace(digits, train=digits.train.take(np.arange(200)))
    config = FinetuneConfig("wrn(depth=10,widen=1,dropout=0.2)", epochs=2)
    whole = finetune(few, config, tmp_path / "whole")
    forward, passes = finetune_loop.Student.forward, []

    def stopping(self, *arguments, **options):
        passes.append(0)
        if len(passes) == 9:
            raise KeyboardInterrupt
        return forward(self, *arguments, **options)

    monkeypatch.setattr(finetune_loop.Student, "forward", stopping)
    with pytest.raises(KeyboardInterrupt):
        finetune(few, config, tmp_path / "stopped", checkpoint_minutes=0.0)
    monkeypatch.setattr(finetune_loop.Student, "forward", forward)
    stopped = finetune(few, config, tmp_path / "stopped", checkpoint_minutes=CHECKPOINT_MINUTES)
    assert (stopped / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


def test_a_student_is_distilled_and_saved_with_its_statistics(digits, taught, tmp_path):
    out = tmp_path / "student"
    options = ["--task", "digits", "--teachers", f"{taught},digits/experts/upright", "--policy", "camkd", "--updates", "6", "--quiet"]
    options += ["--set", "kd_weight=0.5", "--set", "knowledge=response"]
    assert invoke(["distill", *options, "--student", STUDENT, "--out", str(out)]) == 0
    (record,) = records.read(out / "distillation")
    network = load(out)
    assert network.text == STUDENT
    assert int(network.stem[1].num_batches_tracked) == 6
    with torch.no_grad():
        classes = network(torch.from_numpy(digits.test.inputs)).logits.argmax(1).numpy()
    assert (classes == digits.test.labels).mean() == pytest.approx(record["test"])
    card = (out / "README.md").read_text()
    assert "library_name: kd-env" in card
    assert "from kd_env.models.convolutional import load" in card
    assert "transformers" not in card


def test_a_saved_student_can_teach_and_be_taught_further(digits, taught, tmp_path):
    trials = [Trial("digits", "uniform", 0, str(taught), settings={"updates": 40, "student": str(taught)})]
    run(trials, tmp_path, Progress(quiet=True))
    (record,) = records.read(tmp_path)
    assert record["validation"] > 0.5, "its body is trained already"
    assert record["student"] == str(taught)


def test_the_exported_student_gives_the_same_logits(digits, taught, tmp_path):
    pytest.importorskip("onnxruntime")
    network = load(taught)
    inputs = {"pixel_values": torch.from_numpy(digits.validation.inputs[:40])}
    assert onnx_export.export(tmp_path / "model.onnx", network, inputs) < 1e-4
    with torch.no_grad():
        expected = network(**inputs).logits.numpy()
    np.testing.assert_allclose(onnx_export.predict(tmp_path / "model.onnx", inputs), expected, atol=1e-4)


def test_half_precision_is_read_back_in_float32(digits, taught, tmp_path, capsys):
    out = tmp_path / "student"
    options = ["--task", "digits", "--teachers", str(taught), "--policy", "uniform", "--updates", "3", "--quiet"]
    assert invoke(["distill", *options, "--student", STUDENT, "--dtype", "float16", "--out", str(out)]) == 0
    assert load(out).classifier.weight.dtype == torch.float32
    assert {"float32", "float16"} <= json.loads((out / "formats.json").read_text()).keys()


def test_a_race_distils_a_convolutional_student(monkeypatch, taught, tmp_path):
    monkeypatch.setattr(candidates, "_policies", lambda task, num_teachers: ["best_single"])
    distilled = kd_env.distill("digits", f"{taught},digits/experts/upright", STUDENT, updates=12, budget=30, out=tmp_path / "best")
    assert not distilled.student.training
    pixels = torch.rand(2, 1, 8, 8)
    assert torch.equal(distilled.student(pixels).logits, load(tmp_path / "best")(pixels).logits)


def test_seeds_of_a_student_with_batch_norm_are_run_one_by_one(tmp_path, capsys):
    settings = {"updates": 2, "student": STUDENT, "batch_size": 8, "validation_every": 2}
    trials = [Trial("digits", "uniform", seed, settings=settings) for seed in (0, 1)]
    assert [len(unit) for unit in _together(trials, 2)] == [1, 1]
    others = [dataclasses.replace(trial, settings={**settings, "student": "mlp(width=4)"}) for trial in trials]
    assert [len(unit) for unit in _together(others, 2)] == [2]
    lines = []
    progress = Progress(quiet=True)
    say = progress.say
    progress.say = lambda line: lines.append(line) or say(line)
    run(trials, tmp_path, progress, population=2)
    assert f"student {STUDENT} cannot be taught in a population (BatchNorm): its seeds are run one by one" in lines
    assert [record["seed"] for record in records.read(tmp_path)] == [0, 1]
    assert all("population" not in record["config"] for record in records.read(tmp_path))


def test_a_policy_that_needs_a_population_is_refused(tmp_path):
    trial = Trial("digits", "mutual_learning", 0, settings={"updates": 2, "student": STUDENT})
    with pytest.raises(InputError, match=r"num_students: .*BatchNorm2d, which mixes the examples of a batch; .* or num_students=1"):
        run([trial], tmp_path, Progress(quiet=True))
