"""Classifiers of other architectures as teachers: the outputs of Transformers, the features below its last layer, and its layers."""

import json

import numpy as np
import pytest
import torch
import transformers
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from kd_env import tasks
from kd_env.bank.bank import open_bank
from kd_env.cli import invoke
from kd_env.errors import InputError
from kd_env.randomness import seeded
from kd_env.teachers import Pool
from kd_env.teachers.checkpoint import CheckpointTeacher
from kd_env.teachers.teacher import classifiers

SHAPE = {
    "vocab_size": 40,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 40,
    "pad_token_id": 0,
    "initializer_range": 0.3,
}
CONFIGS = {
    "XLMRoberta": lambda: transformers.XLMRobertaConfig(**{**SHAPE, "pad_token_id": 1}),
    "Camembert": lambda: transformers.CamembertConfig(**{**SHAPE, "pad_token_id": 1}),
    "Electra": lambda: transformers.ElectraConfig(**SHAPE, embedding_size=8),
    "Albert": lambda: transformers.AlbertConfig(**SHAPE, embedding_size=8),
    "DebertaV2": lambda: transformers.DebertaV2Config(**SHAPE, pooler_hidden_size=16),
    "GPT2": lambda: transformers.GPT2Config(vocab_size=40, n_embd=16, n_layer=2, n_head=2, n_positions=40, initializer_range=0.3),
    "Llama": lambda: transformers.LlamaConfig(**SHAPE),
    "XLNet": lambda: transformers.XLNetConfig(vocab_size=40, d_model=16, n_layer=2, n_head=2, d_inner=24, initializer_range=0.3),
    "FNet": lambda: transformers.FNetConfig(**{name: value for name, value in SHAPE.items() if name != "num_attention_heads"}),
}
KNOWN = ("XLMRoberta", "Camembert", "Electra")
"""Architectures that can be students, too."""


def write(folder, name, make_checkpoint):
    """An untrained checkpoint of an architecture, with the tokenizer of ``make_checkpoint``."""
    make_checkpoint(folder, "roberta" if name in ("XLMRoberta", "Camembert") else "distilbert")
    config = CONFIGS[name]()
    config.id2label, config.label2id = {0: "neg", 1: "pos"}, {"neg": 0, "pos": 1}
    with seeded(0):
        getattr(transformers, f"{name}ForSequenceClassification")(config).save_pretrained(folder)
    return folder


@torch.no_grad()
def transformers_logits(folder, texts):
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForSequenceClassification.from_pretrained(folder).eval()
    inputs = [tokenizer(text, return_tensors="pt") for text in texts]
    if type(model).__name__.startswith("FNet"):
        inputs = [{"input_ids": row["input_ids"]} for row in inputs]
    return torch.cat([model(**row).logits for row in inputs])


@pytest.mark.parametrize("name", CONFIGS)
def test_logits_are_those_of_transformers_and_features_give_them(name, make_checkpoint, own_task, tmp_path):
    folder = write(tmp_path / name, name, make_checkpoint)
    teacher, texts = CheckpointTeacher(str(folder), own_task), own_task.train.inputs[:40]
    output = teacher(texts)
    torch.testing.assert_close(output.logits, transformers_logits(folder, texts), atol=1e-4, rtol=1e-3)
    assert output.logits.std(0).min() > 1e-3, "the texts are told apart, so the order matters"
    ((weight, bias),) = classifiers(Pool("p", (teacher,)))
    torch.testing.assert_close(output.features @ weight.T + bias, output.logits, atol=1e-5, rtol=1e-4)
    assert output.features.shape == (40, 16)
    assert output.layers.shape == (40, 3, 16)
    assert (output.attention is not None) == (name in KNOWN)


def test_a_gpt_like_model_without_a_padding_token_uses_its_end_token(make_checkpoint, own_task, tmp_path):
    folder = write(tmp_path / "gpt", "GPT2", make_checkpoint)
    before = CheckpointTeacher(str(folder), own_task)(own_task.train.inputs[:20]).logits
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text())
    settings["eos_token"] = settings.pop("pad_token")
    path.write_text(json.dumps(settings))
    torch.testing.assert_close(CheckpointTeacher(str(folder), own_task)(own_task.train.inputs[:20]).logits, before)


def test_a_bank_of_it_and_what_it_cannot_do(make_checkpoint, own_data, own_task, tmp_path, capsys):
    folder = write(tmp_path / "gpt", "GPT2", make_checkpoint)
    teacher = CheckpointTeacher(str(folder), own_task)
    bank = open_bank(own_task, Pool("p", (teacher,)), tmp_path / "bank", keep=frozenset({"layers"}))
    rows = np.arange(0, len(own_task.train), 5)
    expected = teacher(own_task.train.inputs[rows])
    np.testing.assert_allclose(bank.gather("train", rows).logits[:, 0], expected.logits, atol=1e-5, rtol=1e-4)
    with pytest.raises(InputError, match=r"teacher 'gpt' has no attention; leave out the knowledge types that compare it"):
        open_bank(own_task, Pool("p", (teacher,)), tmp_path / "other", keep=frozenset({"attention"}))
    assert invoke(["teach", "--task", f"folder:{own_data}", "--model", str(folder), "--out", f"{tmp_path}/taught", "--quiet"]) == 2
    assert "architecture 'gpt2' can be a teacher as it is, but not be trained here" in capsys.readouterr().err


@pytest.mark.parametrize("name", KNOWN)
def test_encoders_under_other_names_are_fine_tuned_and_distilled(name, make_checkpoint, own_data, own_task, tmp_path):
    folder = write(tmp_path / name, name, make_checkpoint)
    command = ["teach", "--task", f"folder:{own_data}", "--model", str(folder), "--epochs", "1", "--quiet", "--out", f"{tmp_path}/taught"]
    assert invoke(command) == 0
    teacher = CheckpointTeacher(f"{tmp_path}/taught", own_task)
    logits = transformers_logits(tmp_path / "taught", own_task.train.inputs[:20])
    torch.testing.assert_close(teacher(own_task.train.inputs[:20]).logits, logits, atol=1e-5, rtol=1e-4)


IMAGE_CONFIGS = {
    "MobileViTV2": lambda: transformers.MobileViTV2Config(width_multiplier=0.125, image_size=64),
    "MobileViT": lambda: transformers.MobileViTConfig(
        hidden_sizes=[8, 8, 8], neck_hidden_sizes=[8, 8, 8, 8, 8, 8, 64], num_attention_heads=2, image_size=64
    ),
    "DeiT": lambda: transformers.DeiTConfig(
        hidden_size=64, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24, image_size=16, patch_size=4
    ),
}


@pytest.mark.parametrize("name", IMAGE_CONFIGS)
def test_image_classifiers_of_other_architectures(name, tmp_path):
    task, config = tasks.load("digits"), IMAGE_CONFIGS[name]()
    config.num_labels = 10
    config.id2label = dict(enumerate(task.class_names))
    config.label2id = {class_name: number for number, class_name in enumerate(task.class_names)}
    with seeded(0):
        getattr(transformers, f"{name}ForImageClassification")(config).save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text('{"size": {"shortest_edge": 64}, "do_normalize": false}')
    teacher = CheckpointTeacher(str(tmp_path), task)
    output = teacher(task.train.inputs[:5])
    assert teacher._read(task.train.inputs[:5])["pixel_values"].shape[2] == (16 if name == "DeiT" else 64)
    assert (output.logits.shape, output.features.shape) == ((5, 10), (5, 64))
    ((weight, bias),) = classifiers(Pool("p", (teacher,)))
    torch.testing.assert_close(output.features @ weight.T + bias, output.logits, atol=1e-5, rtol=1e-4)
    if name == "MobileViTV2":
        torch.testing.assert_close(output.maps.mean((2, 3)), output.features, atol=1e-5, rtol=1e-4)
    else:
        assert output.maps is None, "of MobileViT, a convolution stands between the last hidden state and the classifier"
    assert teacher.forward(task.train.inputs[:2], frozenset()).maps is None, "only on request"
    stages = teacher.forward(task.train.inputs[:2], frozenset({"maps.all", "maps.stem"})).stages
    assert list(stages) == ([] if name == "DeiT" else ["stem", *(f"stage{number}" for number in range(1, 5))])
    if name == "MobileViTV2":
        torch.testing.assert_close(stages["stage4"].mean((2, 3)), output.features[:2], atol=1e-5, rtol=1e-4)
    if name == "MobileViT":
        with pytest.raises(
            InputError, match=r"has no maps whose means are its features; name .* map_hint\(stage=stage4\); it has stem, .*, stage4$"
        ):
            open_bank(task, Pool("p", (teacher,)), tmp_path / "bank", keep=frozenset({"maps"}))
