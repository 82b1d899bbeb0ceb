"""Heads of one teacher: fitted to train alone and the same every time, of networks and of transformers, and what is refused."""

import dataclasses
import json
from itertools import pairwise

import numpy as np
import pytest
import torch
from counted_passes import Counted

from kd_env import tasks
from kd_env.bank.bank import open_bank
from kd_env.benchmark.trial import Trial
from kd_env.cli import invoke
from kd_env.errors import InputError
from kd_env.models.networks import MLP, build
from kd_env.tasks import Split, Task
from kd_env.teachers import NetworkTeacher, load_pool
from kd_env.teachers import heads as heads_module
from kd_env.teachers.checkpoint import CheckpointTeacher
from kd_env.teachers.finetune import finetune
from kd_env.teachers.finetune_config import FinetuneConfig
from kd_env.teachers.heads import heads_of, parse
from kd_env.teachers.out_of_fold import finetune_folds


def xor_task(count=400):
    """Two pixels, dark or bright; the class is whether they differ."""
    pixels = np.random.default_rng(0).integers(2, size=(count, 2))
    split = Split(pixels.astype(np.float32).reshape(count, 1, 1, 2), pixels[:, 0] ^ pixels[:, 1])
    return Task("xor", "image", split, split, split, split, ("same", "differ"), tasks.load("digits").defaults)


def xor_network():
    """The first layer copies the pixels a and b, the second computes a + b and max(a + b - 1, 0); xor is a + b less twice the other."""
    network = MLP(2, 2, width=2, depth=2)
    with torch.no_grad():
        for layer, (weight, bias) in zip(
            (network.body[0], network.body[2], network.classifier),
            (([[1, 0], [0, 1]], [0, 0]), ([[1, 1], [1, 1]], [0, -1]), ([[0, 0], [1, -2]], [0.5, 0])),
            strict=True,
        ):
            layer.weight.copy_(torch.tensor(weight))
            layer.bias.copy_(torch.tensor(bias))
    return network


def accuracy(teacher, split):
    return float((teacher(split.inputs).logits.argmax(1).numpy() == split.labels).mean())


# the heads


def test_a_deeper_head_knows_what_a_shallower_one_cannot():
    task = xor_task()
    pool = heads_of([NetworkTeacher("xor", xor_network(), task)], task)
    assert [head.name for head in pool] == ["layer-1", "layer-2", "output"]
    first, second, output = (accuracy(head, task.validation) for head in pool)
    assert first < 0.8, "a linear classifier gets at most three of the four corners right"
    assert second == output == 1.0


@pytest.mark.long
def test_heads_of_a_trained_network_grow_with_depth(digits, deep):
    pool = heads_of([deep], digits)
    assert [head.name for head in pool] == ["layer-1", "layer-2", "layer-3", "output"]
    right = [accuracy(head, digits.validation) for head in pool]
    assert min(deeper - shallower for shallower, deeper in pairwise(right)) > -0.01
    assert right[2] > right[0] + 0.01
    full = deep(digits.validation.inputs[:20])
    output = pool[-1](digits.validation.inputs[:20])
    assert torch.equal(output.logits, full.logits)
    assert torch.equal(output.features, full.features)
    second = pool[1](digits.validation.inputs[:20])
    assert torch.equal(second.features, full.layers[:, 1])
    assert torch.equal(second.layers, full.layers[:, :2])
    torch.testing.assert_close(second.logits, full.layers[:, 1] @ pool[1].weight.T + pool[1].bias)


@pytest.mark.long
def test_a_network_with_one_hidden_layer_gives_two_teachers(digits):
    pool = load_pool("heads(digits/mixed/good)", digits)
    assert pool.names == ("layer-1", "output")
    assert pool.best_for_group is None
    assert load_pool("heads(digits/mixed/good),digits/mixed/weak", digits).names == ("layer-1", "output", "weak")


@pytest.mark.long
def test_heads_are_fitted_once_to_train_alone_and_the_same_again(digits, deep, tmp_path, monkeypatch):
    monkeypatch.setattr(heads_module, "cache_dir", lambda: tmp_path)
    digits = dataclasses.replace(digits, train=digits.train.take(np.arange(600)))
    counted = Counted(deep)
    first = heads_of([counted], digits)
    assert sum(counted.calls) == len(digits.train)
    (file,) = (tmp_path / "teachers").glob("heads-*.safetensors")
    whole = file.read_bytes()
    heads_of([counted], digits)
    assert sum(counted.calls) == len(digits.train), "they are in the cache"
    for damaged in (whole[:-20], b"nothing of the kind"):
        file.write_bytes(damaged)
        torch.rand(3)
        again = heads_of([counted], digits)
        assert file.read_bytes() == whole
        assert [head.fingerprint() for head in again] == [head.fingerprint() for head in first]
    assert len({head.fingerprint() for head in first}) == 4
    other = dataclasses.replace(digits, reward=digits.train, validation=digits.train, test=None)
    assert other.fingerprint != digits.fingerprint, "so the heads are fitted again"
    assert torch.equal(heads_of([deep], other)[0].weight, first[0].weight)


@pytest.mark.long
def test_examples_without_a_label_are_not_read(digits, deep):
    few = digits.train.take(np.arange(500))
    labels = np.where(np.arange(500) % 5 == 0, -1, few.labels)
    task = dataclasses.replace(digits, train=dataclasses.replace(few, labels=labels), unlabelled=True)
    known = dataclasses.replace(digits, train=few.take(np.flatnonzero(labels >= 0)))
    assert torch.equal(heads_of([deep], task)[1].weight, heads_of([deep], known)[1].weight)


# transformers


@pytest.mark.long
def test_the_blocks_of_a_checkpoint_have_heads_and_its_embedding_has_none(own_task, tmp_path):
    out = finetune(own_task, FinetuneConfig("tiny-bert(width=16,layers=2,dropout=0)", epochs=5, lr=3e-3), tmp_path / "teacher")
    pool = load_pool(f"heads({out})", own_task)
    assert pool.names == ("layer-1", "layer-2", "output")
    assert [head.layer for head in pool.teachers] == [1, 2, None]
    checkpoint = CheckpointTeacher(str(out), own_task)
    output = checkpoint(own_task.validation.inputs[:9])
    torch.testing.assert_close(pool.teachers[0](own_task.validation.inputs[:9]).features, output.layers[:, 1], atol=1e-5, rtol=1e-4)
    assert all(accuracy(head, own_task.validation) > 0.8 for head in pool.teachers)
    bank = open_bank(own_task, pool, tmp_path / "bank")
    np.testing.assert_allclose(bank.gather("validation", slice(0, 9)).logits[:, 2], output.logits, atol=1e-5)


def test_another_checkpoint_of_that_name_is_another_trial(own_data, make_checkpoint, tmp_path):
    def trial_id():
        return Trial(f"folder:{own_data}", "uniform", 0, f"heads({tmp_path}/model)", settings={"updates": 2}).id

    make_checkpoint(tmp_path / "model", seed=0)
    first = trial_id()
    assert trial_id() == first
    make_checkpoint(tmp_path / "model", seed=1)
    assert trial_id() != first


# what is refused, and the command


@pytest.mark.parametrize(("text", "teacher"), [("heads(a/b)", "a/b"), (" heads( a ) ", "a"), ("heads", None), ("heads(a),heads(b)", None)])
def test_the_teacher_in_the_brackets(text, teacher):
    assert parse(text) == teacher


@pytest.mark.long
def test_a_teacher_that_can_have_no_heads_is_refused(digits, own_task, tmp_path):
    with pytest.raises(InputError, match=r"heads\(\.\.\.\) takes one teacher, and here are 4 \(good, weak, label-noise, overconfident\)"):
        load_pool("heads(digits/mixed)", digits)
    with pytest.raises(InputError, match="unknown pool 'digits/mixd'"):
        load_pool("heads(digits/mixd)", digits)
    out = finetune_folds(own_task, FinetuneConfig("tiny-bert(width=8,layers=1)", epochs=1), 2, tmp_path / "folded")
    with pytest.raises(InputError, match=r"heads\(folded\): that teacher has no layers; name a network, or a checkpoint without folds"):
        load_pool(f"heads({out})", own_task)
    silent = build("mlp(width=4)", digits, 0)
    with torch.no_grad():
        silent.body[0].weight.zero_()
    with pytest.raises(InputError, match="its layers are the same for every training example; give a trained teacher"):
        heads_of([NetworkTeacher("silent", silent, digits)], digits)


@pytest.mark.long
def test_the_command_distils_from_them(tmp_path, capsys):
    words = ["run", "--task", "digits", "--teachers", "heads(digits/mixed/good)", "--policy", "uniform", "--updates", "5", "--seeds", "0"]
    assert invoke([*words, "--out", str(tmp_path), "--quiet"]) == 0
    record = json.loads((tmp_path / "results.jsonl").read_text())
    assert record["teachers"] == ["layer-1", "output"]
    assert record["selection_rate"] == pytest.approx([0.5, 0.5])
    digits = tasks.load("digits")
    sizes = sum(len(getattr(digits, name)) for name in ("train", "reward", "validation"))
    assert record["teacher_forward_examples"] == sizes, "one network was run"
    assert np.isfinite(record["test"])
    capsys.readouterr()
    assert invoke(["list", "pools"]) == 0
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("heads("))
    assert line.split()[:4] == ["heads(TEACHER)", "one", "per", "layer"]
