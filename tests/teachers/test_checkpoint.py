"""A checkpoint as a teacher gives the outputs of Transformers, in the task's order of classes, in any batch."""

import shutil

import numpy as np
import pytest
import torch
from transformers import AutoModelForImageClassification, AutoModelForSequenceClassification, AutoTokenizer

from kd_env import tasks
from kd_env.bank.bank import open_bank
from kd_env.errors import InputError
from kd_env.models.pretrained import Checkpoint
from kd_env.tasks import loading
from kd_env.teachers import Pool, load_pool
from kd_env.teachers.checkpoint import CheckpointTeacher
from kd_env.teachers.finetune import finetune
from kd_env.teachers.finetune_config import FinetuneConfig
from kd_env.teachers.teacher import classifiers

PAIRS = np.array([["the film was good", "it was"], ["a plot", "awful actor and the scene that saw a film"]] * 3, dtype=object)


@torch.no_grad()
def transformers_outputs(folder, texts):
    """Outputs of Transformers for one text at a time, so that there is no padding."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForSequenceClassification.from_pretrained(folder).eval()
    rows = [(row,) if isinstance(row, str) else tuple(row) for row in texts]
    return [model(**tokenizer(*row, return_tensors="pt"), output_hidden_states=True) for row in rows]


@pytest.mark.parametrize("architecture", ["bert", "distilbert", "roberta"])
def test_outputs_are_those_of_transformers_in_the_order_of_the_inputs(architecture, make_checkpoint, own_task, tmp_path):
    folder = make_checkpoint(tmp_path / architecture, architecture)
    teacher, texts = CheckpointTeacher(str(folder), own_task), own_task.train.inputs[:70]
    output, expected = teacher(texts), transformers_outputs(folder, texts)
    torch.testing.assert_close(output.logits, torch.cat([row.logits for row in expected]), atol=1e-5, rtol=1e-4)
    assert output.logits.std(0).min() > 0.05, "the texts are told apart, so the order matters"
    torch.testing.assert_close(teacher.network.classifier(output.features), output.logits, atol=1e-5, rtol=1e-4)
    layers = torch.stack([torch.stack([layer[0, 0] for layer in row.hidden_states]) for row in expected])
    torch.testing.assert_close(output.layers, layers, atol=1e-5, rtol=1e-4)
    assert output.layers.shape == (70, 4, 16)
    sums = output.attention.sum(3)
    assert bool((((sums - 1).abs() < 1e-4) | (sums == 0)).all())
    alone = teacher(texts[3:4])
    torch.testing.assert_close(alone.logits[0], output.logits[3], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("architecture", ["bert", "roberta"])
def test_the_two_texts_of_a_pair_are_encoded_as_the_checkpoint_does(architecture, make_checkpoint, own_task, tmp_path):
    folder = make_checkpoint(tmp_path / "pairs", architecture)
    output = CheckpointTeacher(str(folder), own_task)(PAIRS)
    torch.testing.assert_close(output.logits, torch.cat([row.logits for row in transformers_outputs(folder, PAIRS)]), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("statistics", [None, ((0.1,), (0.7,))])
def test_images_are_normalised_as_the_checkpoint_says(statistics, make_checkpoint, tmp_path):
    task = tasks.load("digits")
    folder = make_checkpoint(tmp_path / "vit", "vit", image_size=8, patch_size=4, num_channels=1, num_labels=10)
    mean, std = ((0.0,), (1.0,)) if statistics is None else statistics
    if statistics is not None:
        (folder / "preprocessor_config.json").write_text(f'{{"image_mean": [{mean[0]}], "image_std": [{std[0]}]}}')
    images = task.train.inputs[:40]
    model = AutoModelForImageClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        expected = model((torch.from_numpy(images) - mean[0]) / std[0]).logits
    torch.testing.assert_close(CheckpointTeacher(str(folder), task)(images).logits, expected, atol=1e-5, rtol=1e-4)


def test_images_of_another_size_and_colour_can_be_read(make_checkpoint, tmp_path):
    task = tasks.load("digits")
    folder = make_checkpoint(tmp_path / "vit", "vit", image_size=16, patch_size=4, num_channels=3, num_labels=10)
    output = CheckpointTeacher(str(folder), task)(task.train.inputs[:3])
    assert output.logits.shape == (3, 10)
    assert output.logits.isfinite().all()


@pytest.mark.parametrize(
    ("labels", "order"), [(None, [0, 1]), (("LABEL_0", "LABEL_1"), [0, 1]), (("Neg", "POS "), [0, 1]), (("Pos", "NEG"), [1, 0])]
)
def test_classes_are_brought_into_the_task_s_order(labels, order, make_checkpoint, own_task, tmp_path):
    folder = make_checkpoint(tmp_path / "labels", labels=labels)
    output = CheckpointTeacher(str(folder), own_task)(own_task.train.inputs[:5]).logits
    expected = torch.cat([row.logits for row in transformers_outputs(folder, own_task.train.inputs[:5])])
    torch.testing.assert_close(output, expected[:, order], atol=1e-5, rtol=1e-4)


def test_the_fingerprint_is_of_content(make_checkpoint, own_task, tmp_path):
    first = make_checkpoint(tmp_path / "one")
    same, other = tmp_path / "same", make_checkpoint(tmp_path / "other", seed=1)
    shutil.copytree(first, same)
    (same / "README.md").write_text("a card changes no output")
    prints = [CheckpointTeacher(str(folder), own_task).fingerprint() for folder in (first, same, other)]
    assert prints[0] == prints[1] != prints[2]
    shutil.copy(other / "model.safetensors", same / "model.safetensors")
    assert CheckpointTeacher(str(same), own_task).fingerprint() == prints[2]
    make_checkpoint(first, labels=("pos", "neg"))
    assert CheckpointTeacher(str(first), own_task).fingerprint() != prints[0]


def test_a_bank_that_is_there_needs_no_weights_to_be_read(make_checkpoint, own_task, tmp_path, monkeypatch):
    folders = [make_checkpoint(tmp_path / name, seed=seed) for seed, name in enumerate("ab")]
    text = ",".join(map(str, folders))
    built = open_bank(own_task, load_pool(text, own_task), tmp_path / "bank", keep=frozenset({"layers", "attention"}))
    monkeypatch.setattr(Checkpoint, "network", lambda *_: pytest.fail("read the weights"))
    pool = load_pool(text, own_task)
    assert pool.names == ("a", "b")
    assert open_bank(own_task, pool, tmp_path / "bank").fingerprint == built.fingerprint


def test_attention_in_the_bank_is_padded_to_the_longest_text(make_checkpoint, own_task, tmp_path):
    teacher = CheckpointTeacher(str(make_checkpoint(tmp_path / "a")), own_task)
    bank = open_bank(own_task, Pool("p", (teacher,)), tmp_path / "bank", keep=frozenset({"attention"}))
    longest = max(len(text.split()) for text in own_task.train.inputs) + 2
    assert bank.shape("attention", 0) == (2, longest, longest)
    kept = torch.from_numpy(bank.gather("train", np.arange(3), frozenset({"attention"})).attention[0])
    output = teacher(own_task.train.inputs[:3]).attention
    torch.testing.assert_close(kept[:, :, : output.shape[2], : output.shape[2]], output, atol=1e-5, rtol=1e-4)
    assert not kept[:, :, output.shape[2] :].any()


def test_the_bank_holds_the_outputs_for_each_text_alone(make_checkpoint, own_task, tmp_path, monkeypatch):
    monkeypatch.setattr("kd_env.bank.shards.SHARD", 100)
    teacher = CheckpointTeacher(str(make_checkpoint(tmp_path / "a")), own_task)
    bank = open_bank(own_task, Pool("p", (teacher,)), tmp_path / "bank", keep=frozenset({"layers"}))
    rows = np.arange(0, len(own_task.train), 7)
    kept = bank.gather("train", rows, frozenset({"layers"}))
    outputs = [teacher(own_task.train.inputs[row : row + 1]) for row in rows]
    np.testing.assert_allclose(kept.logits[:, 0], torch.cat([row.logits for row in outputs]), atol=1e-5, rtol=1e-4)
    np.testing.assert_allclose(kept.features[0], torch.cat([row.features for row in outputs]), atol=1e-5, rtol=1e-4)
    np.testing.assert_allclose(kept.layers[0], torch.cat([row.layers for row in outputs]), atol=1e-5, rtol=1e-4)


def test_other_classes_are_refused(make_checkpoint, own_task, tmp_path):
    folder = make_checkpoint(tmp_path / "labels", labels=("good", "bad"))
    with pytest.raises(InputError, match=r"has the classes 2: good, bad, task '.*' has 2: neg, pos; give a teacher of the same classes"):
        CheckpointTeacher(str(folder), own_task)


@pytest.mark.parametrize("labels", [("neg", "pos"), ("pos", "neg")])
def test_the_head_maps_features_to_logits_in_the_task_s_order_of_classes(labels, make_checkpoint, own_task, tmp_path):
    teacher = CheckpointTeacher(str(make_checkpoint(tmp_path / "one", labels=labels)), own_task)
    ((weight, bias),) = classifiers(Pool("one", (teacher,)))
    output = teacher(own_task.train.inputs[:20])
    torch.testing.assert_close(output.features @ weight.T + bias, output.logits, atol=1e-5, rtol=1e-4)
    assert (output.logits[:, 0] - output.logits[:, 1]).abs().min() > 1e-3, "the order of the classes matters"


@pytest.mark.long
def test_a_teacher_of_data_that_have_changed_says_so(own_data, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(own_data, data)
    task = tasks.load(f"folder:{data}")
    taught = finetune(task, FinetuneConfig(model="tiny-bert(width=16,layers=1)", epochs=1), tmp_path / "teacher")
    note = "the task's data have changed since it was taught, so held-out scores may be too high; teach it again"
    assert note not in CheckpointTeacher(str(taught), task).notes
    with (data / "train.tsv").open("a") as file:
        file.write("a new text\tpos\ta\n")
    loading._loaded.cache_clear()  # as in another process
    assert note in CheckpointTeacher(str(taught), tasks.load(f"folder:{data}")).notes
