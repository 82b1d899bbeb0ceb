"""Checkpoints that cannot be used: one line that says what, where and how to fix it; exit 2; nothing half-written."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from kd_env.cli import invoke


@pytest.fixture
def place(tmp_path, make_checkpoint, monkeypatch):
    """A folder to be in, with a good checkpoint."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    make_checkpoint(tmp_path / "good")
    return tmp_path


def change_weights(folder, change):
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def change_json(path, **values):
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def copy(place, name="bad"):
    return shutil.copytree(place / "good", place / name)


def other_labels(place, make):
    make(place / "bad", labels=("cat", "dog"))


def more_labels(place, make):
    make(place / "bad", num_labels=3)


def missing_tensors(place, make):
    change_weights(copy(place), lambda weights: weights.pop("bert.encoder.layer.1.output.dense.weight"))


def no_head(place, make):
    change_weights(copy(place), lambda weights: [weights.pop(f"classifier.{name}") for name in ("weight", "bias")])


def strange_tensors(place, make):
    change_weights(copy(place), lambda weights: weights.update({"bert.adapter.weight": torch.ones(2)}))


def wrong_shape(place, make):
    change_json(copy(place) / "config.json", intermediate_size=20)


def nan_weights(place, make):
    change_weights(copy(place), lambda weights: weights["bert.pooler.dense.bias"].fill_(float("nan")))


def pickle_only(place, make):
    folder = copy(place)
    torch.save({}, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def no_weights(place, make):
    (copy(place) / "model.safetensors").unlink()


def torn_weights(place, make):
    path = copy(place) / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def no_config(place, make):
    (place / "bad").mkdir()


def broken_config(place, make):
    (copy(place) / "config.json").write_text('{"model_type": "bert",')


def config_is_a_list(place, make):
    (copy(place) / "config.json").write_text("[]")


def config_with_nonsense(place, make):
    change_json(copy(place) / "config.json", num_attention_heads=7)


def other_architecture(place, make):
    change_json(copy(place) / "config.json", model_type="clap")


def code_of_its_own(place, make):
    change_json(copy(place) / "config.json", model_type="mine", auto_map={"AutoConfig": "mine.Config"})
    (place / "bad" / "mine.py").write_text("raise SystemExit('run')")


def wrong_kind(place, make):
    make(place / "bad", "vit", image_size=8, patch_size=4)


def no_tokenizer(place, make):
    folder = copy(place)
    for path in folder.glob("tokenizer*"):
        path.unlink()


def broken_tokenizer(place, make):
    (copy(place) / "tokenizer.json").write_text("{")


def larger_tokenizer(place, make):
    folder = copy(place)
    content = json.loads((folder / "tokenizer.json").read_text())
    content["model"]["vocab"] |= {f"more{number}": 100 + number for number in range(9)}
    (folder / "tokenizer.json").write_text(json.dumps(content))


def no_padding_token(place, make):
    folder = copy(place)
    for file in folder.glob("*token*.json"):
        content = json.loads(file.read_text())
        file.write_text(json.dumps({key: value for key, value in content.items() if key not in ("pad_token", "eos_token")}))


CHECKPOINTS = [
    (other_labels, "has the classes 2: cat, dog, task"),
    (more_labels, "has the classes 3: LABEL_0, LABEL_1, LABEL_2, task"),
    (missing_tensors, "1 tensors are missing or have another shape, for example bert.encoder.layer.1.output.dense.weight"),
    (no_head, "its classifier is not trained; use a checkpoint of a classifier, or make one with kd-env teach"),
    (strange_tensors, "1 tensors that a BertForSequenceClassification does not have, for example bert.adapter.weight"),
    (wrong_shape, "tensors are missing or have another shape, for example bert.encoder.layer.0.intermediate.dense.bias"),
    (nan_weights, "tensor bert.pooler.dense.bias has NaN or infinite values"),
    (pickle_only, "the weights are a pickle, which can run any code"),
    (no_weights, "no model.safetensors"),
    (torn_weights, "the weights cannot be read"),
    (no_config, "no config.json in it"),
    (broken_config, "config.json cannot be read"),
    (config_is_a_list, "config.json: a JSON list, expected an object"),
    (config_with_nonsense, "bad"),
    (other_architecture, "architecture 'clap' is not supported: Transformers has no classifier of texts or images of that name"),
    (code_of_its_own, "architecture 'mine' is not supported"),
    (wrong_kind, "reads image, task"),
    (no_tokenizer, "no tokenizer in this folder"),
    (broken_tokenizer, "the tokenizer cannot be read"),
    (larger_tokenizer, "tokens and the weights"),
    (no_padding_token, "the tokenizer has no padding token; set tokenizer.pad_token as in training, and save it"),
]


def refused(words, says, capsys):
    assert invoke([str(word) for word in words]) == 2
    out, error = capsys.readouterr()
    assert out == ""
    (line,) = error.splitlines()
    assert line.startswith("kd-env: ")
    assert says in line, line
    assert "Traceback" not in line


@pytest.mark.parametrize(("spoil", "says"), CHECKPOINTS)
def test_as_a_teacher(spoil, says, place, make_checkpoint, own_data, capsys):
    spoil(place, make_checkpoint)
    refused(["bank", "--task", f"folder:{own_data}", "--teachers", "bad", "--out", "bank", "--quiet"], says, capsys)
    refused(["bank", "--task", f"folder:{own_data}", "--teachers", "good,bad", "--out", "bank", "--quiet"], says, capsys)
    assert not [path for path in place.iterdir() if path.name.strip(".").startswith("bank") and path.is_dir()]


FOR_ANOTHER_HEAD = {other_labels, more_labels, no_head, strange_tensors}


@pytest.mark.parametrize(("spoil", "says"), [case for case in CHECKPOINTS if case[0] not in FOR_ANOTHER_HEAD])
def test_as_what_a_teacher_or_a_student_begins_from(spoil, says, place, make_checkpoint, own_data, capsys):
    spoil(place, make_checkpoint)
    says = "no config.json, so this is not a Transformers checkpoint" if spoil is no_config else says
    refused(["teach", "--task", f"folder:{own_data}", "--model", "./bad", "--out", "taught", "--quiet"], says, capsys)
    assert not [path for path in place.iterdir() if "taught" in path.name]
    words = ["--task", f"folder:{own_data}", "--policy", "uniform", "--student", "./bad", "--teachers", "good", "--updates", "1", "--quiet"]
    refused(["distill", *words, "--out", "student"], says, capsys)
    assert not [path for path in place.iterdir() if "student" in path.name]


@pytest.mark.parametrize("spoil", sorted(FOR_ANOTHER_HEAD, key=lambda spoil: spoil.__name__))
def test_another_head_does_not_matter_to_a_body(spoil, place, make_checkpoint, own_data):
    spoil(place, make_checkpoint)
    assert invoke(["teach", "--task", f"folder:{own_data}", "--model", "./bad", "--epochs", "1", "--out", "taught", "--quiet"]) == 0
