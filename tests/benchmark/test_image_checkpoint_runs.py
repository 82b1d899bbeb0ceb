"""Transformers' convolutional classifiers from end to end: students on maps, snapshots, credit, distilled and taught networks."""

import dataclasses

import numpy as np
import pytest
import torch
from image_checkpoints import CONFIGS, NORMALISED, write_image_checkpoint
from transformers import AutoModelForImageClassification

from kd_env import tasks
from kd_env.bank.bank import open_bank
from kd_env.benchmark.student_checkpoint import save_student
from kd_env.cli import invoke
from kd_env.distillation import Distillation, EncodedTask
from kd_env.distillation.reward_meter import RewardMeter
from kd_env.distillation.settings import distillation_settings
from kd_env.envs import credit
from kd_env.errors import InputError
from kd_env.knowledge.terms import extra_outputs, parse_terms
from kd_env.models import onnx_export
from kd_env.models.networks import build
from kd_env.teachers import Pool
from kd_env.teachers.checkpoint import CheckpointTeacher
from kd_env.teachers.live import LiveTeachers
from kd_env.types import Decision

pytestmark = pytest.mark.long

TINY_STEPS = "sgd(lr=0.00000000001)"
"""In a MobileNet of 28 layers and of statistics of 4 images, larger steps are not linear."""
ON_STAGES = "response,map_hint(stage=stage2),attention_transfer(stages=all),map_similarity(stage=stage3),hint"


@pytest.fixture(scope="module")
def task():
    return tasks.load("digits")


@pytest.fixture(scope="module")
def few(task):
    return dataclasses.replace(task, train=task.train.take(np.arange(32)), reward=task.reward.take(np.arange(40)))


@pytest.fixture(scope="module")
def folders(few, tmp_path_factory):
    place = tmp_path_factory.mktemp("checkpoints")
    return {name: write_image_checkpoint(place / name, name, few, seed=number) for number, name in enumerate(CONFIGS)}


def start(task, folders, student, knowledge=ON_STAGES, teachers=("resnet", "mobilenet_v2"), **keywords):
    pool = Pool("p", tuple(CheckpointTeacher(folders[name], task) for name in teachers))
    bank = open_bank(task, pool, keep=extra_outputs(parse_terms(knowledge)))
    settings = {"batch_size": 8, "updates": 20, "precision": "float64", "optimizer": "sgd(lr=0.001)", **keywords}
    chosen = distillation_settings(task, student=student, knowledge=knowledge, **settings)
    live = LiveTeachers.of(pool, torch.device("cpu")) if chosen.teacher_answers == "live" else None
    return Distillation(EncodedTask.of(task, bank, student, live=live), chosen, 0)


def taught(run, updates):
    losses = []
    for _ in range(updates):
        run.observe()
        weights = dict.fromkeys(run.loss.terms, torch.full((8 * run.num_students, 2), 0.5, dtype=torch.float64))
        losses.append(run.apply(Decision(weights, dict.fromkeys(weights, 1.0), 2.0)).loss.copy())
    return losses


@pytest.mark.parametrize("name", CONFIGS)
def test_a_student_learns_from_maps_and_is_restored_to_the_bit(name, few, folders):
    run = start(few, folders, f"{folders[name]}(dropout=0.1)")
    before = [parameter.detach().clone() for parameter in run.student.parameters]
    taught(run, 2)
    changed = [not torch.equal(old, new) for old, new in zip(before, run.student.parameters, strict=True)]
    assert sum(changed) > 0.8 * len(changed)
    twin, state = run.fork(), run.snapshot()
    losses, end = taught(run, 2), run.student.state()
    fresh = start(few, folders, f"{folders[name]}(dropout=0.1)")
    fresh.restore(state)
    for other in (twin, fresh):
        assert np.array_equal(taught(other, 2), losses)
        assert all(torch.equal(value, end[key]) for key, value in other.student.state().items())


@pytest.mark.parametrize("name", CONFIGS)
def test_first_order_credit_is_the_derivative(name, few, folders):
    run = start(few, folders, f"{folders[name]}(dropout=0)", "response,map_hint(stage=stage2)", batch_size=4, optimizer=TINY_STEPS)
    meter = RewardMeter(run.reward_split, run.seeds.tolist(), 20, measure="loss")
    terms = ["response", "map_hint"]
    values, exact = (credit.CREDITS[kind](run, meter, terms) for kind in ("first_order", "counterfactual"))
    for term in terms:
        assert values[term].any()
        torch.testing.assert_close(values[term], exact[term], rtol=0.02, atol=0.02 * float(exact[term].abs().max()))


@pytest.mark.parametrize("name", CONFIGS)
def test_the_last_map_is_the_one_whose_means_are_the_features(name, few, folders):
    """Of a ConvNeXt, a norm stands between them: it is refused as a student and as a teacher, with the stages that it has."""
    if name not in NORMALISED:
        other = "regnet" if name == "resnet" else "resnet"
        losses = taught(start(few, folders, folders[name], "map_hint,attention_transfer", (name, other)), 2)
        assert np.isfinite(losses).all()
        return
    remedy = r"name one of its stages, as in map_hint\(stage=stage4\); it has stem, stage1, stage2, stage3, stage4$"
    with pytest.raises(InputError, match=f"teacher '{name}' has no maps whose means are its features; {remedy}"):
        start(few, folders, "resnet8(width=2)", "map_hint", (name,))
    with pytest.raises(InputError, match=f"has no maps whose means are its features, which map_hint compares; {remedy}"):
        start(few, folders, folders[name], "map_hint")
    with pytest.raises(
        InputError, match=f"teacher '{name}' has no feature map of stage 'stage5'; it has stem, .*, stage4; name one of these"
    ):
        start(few, folders, "resnet8(width=2)", "map_hint(stage=stage5)", (name,))


def test_a_network_of_the_package_learns_from_all_their_stages(few, folders):
    run = start(few, folders, "resnet8(width=2)", "attention_transfer(stages=all)", ("convnext", "mobilenet_v2"))
    assert [list(stages) for stages in run.observe().teacher_stages] == [[f"stage{number}" for number in range(1, 5)]] * 2
    assert np.isfinite(taught(run, 2)).all()


def test_batch_norm_refuses_a_population_and_a_convnext_is_one(few, folders):
    with pytest.raises(InputError, match="BatchNorm2d, which mixes the examples of a batch"):
        start(few, folders, folders["resnet"], num_students=2)
    knowledge = "response,hint,attention_transfer(stages=all)"  # the regressors of map_hint have BatchNorm
    together = start(few, folders, folders["convnext"], knowledge, num_students=2)
    taught(together, 2)
    alone = start(few, folders, folders["convnext"], knowledge)
    taught(alone, 2)
    state, expected = together.student.state_of(0), alone.student.state()
    for key in (key for key in expected if key.startswith("network.")):
        torch.testing.assert_close(state[key], expected[key], rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_taught_student_is_saved_as_a_checkpoint(name, few, folders, tmp_path):
    run = start(few, folders, folders[name], "response")
    taught(run, 2)
    save_student(tmp_path, run)
    teacher, inputs = CheckpointTeacher(str(tmp_path), few), few.validation.inputs[:20]
    pixels = teacher.read(inputs)
    output, model = teacher.forward(inputs, frozenset({"maps.all"})), AutoModelForImageClassification.from_pretrained(tmp_path)
    np.testing.assert_allclose(output.logits, run.student.predict(pixels), rtol=1e-3, atol=1e-4)
    assert output.stages["stage2"].ndim == 4
    with torch.no_grad():
        torch.testing.assert_close(output.logits, model(**pixels).logits, rtol=1e-5, atol=1e-6)
    assert list(model.config.id2label.values()) == list(few.class_names)
    again = build(str(tmp_path), few, 0).model.base_model.state_dict()
    assert all(torch.equal(value, again[key]) for key, value in model.base_model.state_dict().items())


@pytest.mark.parametrize("name", ["resnet", "convnextv2", "mobilenet_v1"])
def test_it_is_exported(name, few, folders, tmp_path):
    teacher, inputs = CheckpointTeacher(folders[name], few), few.validation.inputs[:20]
    pixels, path = teacher.read(inputs), tmp_path / "model.onnx"
    assert onnx_export.export(path, teacher.network.model, pixels) < 1e-3
    np.testing.assert_allclose(onnx_export.predict(path, pixels), teacher(inputs).logits, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("settings", [{}, {"teacher_learning": "feedback"}])
def test_one_that_answers_live_can_learn(settings, few, folders):
    run = start(few, folders, "resnet8(width=2)", "response", ("convnext", "mobilenet_v2"), teacher_answers="live", **settings)
    stored = start(few, folders, "resnet8(width=2)", "response", ("convnext", "mobilenet_v2"))
    torch.testing.assert_close(run.observe().teacher_logits, stored.observe().teacher_logits, rtol=1e-3, atol=1e-4)
    losses = taught(run, 2)
    assert np.isfinite(losses).all()


def test_the_command_distils_one(folders, tmp_path):
    out, teachers = tmp_path / "student", f"{folders['resnet']},{folders['convnext']}"
    words = ["--task", "digits", "--teachers", teachers, "--policy", "uniform", "--student", folders["convnext"], "--updates", "3"]
    assert invoke(["distill", *words, "--export", "onnx", "--quiet", "--out", str(out)]) == 0
    assert {"model.safetensors", "model.onnx", "preprocessor_config.json"} <= {path.name for path in out.iterdir()}
    assert "library_name: transformers" in (out / "README.md").read_text()


def test_teach_trains_one_that_teaches_with_its_maps(task, folders, tmp_path):
    out = tmp_path / "taught"
    words = ["teach", "--task", "digits", "--model", folders["resnet"], "--epochs", "4", "--fraction", "0.3", "--lr", "0.01", "--quiet"]
    assert invoke([*words, "--out", str(out)]) == 0
    teacher = CheckpointTeacher(str(out), task)
    output = teacher(task.validation.inputs)
    assert (output.logits.argmax(1).numpy() == task.validation.labels).mean() > 0.8
    torch.testing.assert_close(output.maps.mean((2, 3)), output.features, rtol=1e-4, atol=1e-5)
