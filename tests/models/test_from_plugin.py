"""Student networks of a user's own, ``module:Class``: what they may look like, and what is refused."""

import pytest
import torch
from torch import nn

from kd_env.errors import InputError
from kd_env.models.from_plugin import is_plugin
from kd_env.models.networks import begins_as_checkpoint, build, reader
from kd_env.models.plugin_network import PluginNetwork
from kd_env.tasks import Task

HERE = f"{__name__}:"


class Pixels(nn.Module):
    """A sound plug-in that returns a tuple."""

    def __init__(self, task, width=6):
        super().__init__()
        assert isinstance(task, Task)
        assert task.test is None, "training code never sees the test split"
        self.body = nn.Linear(task.train.inputs[0].size, width)
        self.classifier = nn.Linear(width, task.num_classes)

    def forward(self, pixel_values):
        features = self.body(pixel_values.flatten(1)).relu()
        return self.classifier(features), features


class Words(nn.Module):
    """A sound plug-in for texts that returns a mapping."""

    def __init__(self, task):
        super().__init__()
        self.embedding = nn.Embedding(len(task.tokenizer()), 5)
        self.classifier = nn.Linear(5, task.num_classes)

    def forward(self, input_ids, attention_mask):
        mask = attention_mask[..., None].to(self.embedding.weight.dtype)
        features = (self.embedding(input_ids) * mask).sum(1) / mask.sum(1)
        return {"features": features, "logits": self.classifier(features), "other": None}


class Broken(Pixels):
    """A plug-in that fails on line 1 of its forward."""

    def forward(self, pixel_values):
        raise RuntimeError("no luck today")


class Tokens(Pixels):
    def forward(self, input_ids, attention_mask):
        return super().forward(input_ids)


class LogitsOnly(Pixels):
    def forward(self, pixel_values):
        return super().forward(pixel_values)[0]


class Hidden(Pixels):
    def forward(self, pixel_values):
        return {"logits": super().forward(pixel_values)[0], "hidden": pixel_values}


class Maps(Pixels):
    def forward(self, pixel_values):
        return super().forward(pixel_values)[0], pixel_values


class TwoClasses(Pixels):
    def forward(self, pixel_values):
        logits, features = super().forward(pixel_values)
        return logits[:, :2], features


class NoTensor(Pixels):
    def forward(self, pixel_values):
        return super().forward(pixel_values)[0], "features"


class OneRow(Pixels):
    def forward(self, pixel_values):
        return super().forward(pixel_values[:1])


class Flat(nn.Module):
    def __init__(self, task):
        super().__init__()
        self.classifier = nn.Linear(64, task.num_classes)

    def forward(self, pixel_values):
        return self.classifier(pixel_values.flatten(1)), pixel_values.flatten(1)


class Frozen(Pixels):
    def __init__(self, task):
        super().__init__(task)
        self.body.weight.requires_grad_(False)


class Constant(nn.Module):
    def __init__(self, task):
        super().__init__()

    def forward(self, pixel_values):
        return torch.zeros(len(pixel_values), 10), pixel_values.flatten(1)


class Counting(Pixels):
    def __init__(self, task):
        super().__init__(task)
        self.register_buffer("passes", torch.zeros(()))

    def forward(self, pixel_values):
        self.passes += 1
        return super().forward(pixel_values)


class Overwriting(Pixels):
    def forward(self, pixel_values):
        output = super().forward(pixel_values)
        pixel_values.zero_()
        return output


class Normed(Pixels):
    def __init__(self, task, norm="BatchNorm1d"):
        super().__init__(task)
        self.norm = getattr(nn, norm)(6)

    def forward(self, pixel_values):
        features = self.norm(self.body(pixel_values.flatten(1))).relu()
        return self.classifier(features), features


class Unbuilt(nn.Module):
    def __init__(self, task):
        raise ValueError("no weights here")


def not_a_module(task):
    return "a network"


@pytest.mark.parametrize("text", [f"{HERE}Pixels", f"{HERE}Pixels(width=4)"])
def test_it_is_built_with_its_task_and_options(digits_data, text):
    network = build(text, digits_data.task, 0)
    assert isinstance(network, PluginNetwork)
    assert network.training
    assert network.module.classifier.in_features == (4 if "4" in text else 6)
    output = network(**reader(text, digits_data.task)(digits_data.task.train.inputs[:3]))
    assert output.logits.shape == (3, 10)
    assert (output.layers, output.attention) == (None, None)
    torch.testing.assert_close(network.classifier(output.features), output.logits)


def test_texts_are_read_as_the_built_in_networks_read_them(text_data):
    text = f"{HERE}Words"
    network, inputs = build(text, text_data.task, 0), reader(text, text_data.task)(text_data.task.train.inputs[:4])
    assert set(inputs) == {"input_ids", "attention_mask"}
    assert all(torch.equal(inputs[name], text_data.inputs["train"][name][:4, : inputs[name].shape[1]]) for name in inputs)
    assert network(**inputs).logits.shape == (4, text_data.task.num_classes)


def test_equal_seeds_give_equal_weights_and_leave_the_global_generator_as_it_is(digits_data):
    before = torch.get_rng_state()
    first, again, other = (build(f"{HERE}Pixels", digits_data.task, seed).state_dict() for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["module.body.weight"], other["module.body.weight"])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("nowhere:Network", "student network 'nowhere:Network' cannot be imported"),
        (f"{HERE}Missing", "cannot be imported .*; give module:name"),
        (f"{HERE}Pixels(depth=2)", r"Pixels\(depth=2\)'.*depth.*options: width"),
        (f"{HERE}Pixels(width=-1)", r"building it fails with RuntimeError: .*test_from_plugin\.py, line \d+\); correct it there"),
        (f"{HERE}Unbuilt", r"building it fails with ValueError: no weights here \(.*test_from_plugin\.py, line \d+\)"),
        (f"{HERE}not_a_module", "a str is not a torch.nn.Module; subclass it"),
        (f"{HERE}Tokens", r"forward cannot be called with pixel_values \(.*input_ids.*\); take these by name"),
        (f"{HERE}Broken", r"forward fails with RuntimeError: no luck today \(.*test_from_plugin\.py, line \d+\); correct it there"),
        (f"{HERE}LogitsOnly", r"forward returned a Tensor; return \(logits, features\), a mapping with these keys, or"),
        (f"{HERE}Hidden", "forward returned a dict of logits, hidden; return"),
        (f"{HERE}Maps", r"features of 2 examples are of shape \[2, 1, 8, 8\], expected a tensor \[2, D\]"),
        (f"{HERE}TwoClasses", r"logits of 2 examples are of shape \[2, 2\], expected a tensor \[2, 10\]"),
        (f"{HERE}NoTensor", r"features of 2 examples are a str, expected a tensor \[2, D\]"),
        (f"{HERE}OneRow", r"logits of 2 examples are of shape \[1, 10\], expected a tensor \[2, 10\]"),
        (f"{HERE}Frozen", "parameter body.weight does not require a gradient; register it as a buffer"),
        (f"{HERE}Constant", "it has no parameters to train"),
        (f"{HERE}Counting", "a pass changes its buffer passes, but passes are repeated; keep buffers constant"),
        (f"{HERE}Overwriting", "forward changes its input pixel_values; copy it there before you change it"),
        (f"{HERE}Pixels(width=3", "expected name"),
    ],
)
def test_what_does_not_fit_is_named(digits_data, text, says):
    with pytest.raises(InputError, match=says):
        build(text, digits_data.task, 0)


def test_a_network_that_overwrites_its_input_does_not_change_the_task(digits_data):
    before = digits_data.task.train.inputs[:2].copy()
    with pytest.raises(InputError, match="forward changes its input"):
        build(f"{HERE}Overwriting", digits_data.task, 0)
    assert (digits_data.task.train.inputs[:2] == before).all()


def test_an_image_network_does_not_read_texts(text_data):
    with pytest.raises(InputError, match="forward cannot be called with input_ids, attention_mask"):
        build(f"{HERE}Flat", text_data.task, 0)


def test_trying_it_leaves_running_statistics_as_they_were(digits_data):
    network = build(f"{HERE}Normed", digits_data.task, 0)
    norm = network.module.norm
    assert norm.running_mean.tolist() == [0.0] * 6
    assert norm.num_batches_tracked == 0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("package.module:Class", True),
        ("package.module:Class(width=3)", True),
        ("package.module:Class(path=some/folder)", True),
        ("mlp(width=24)", False),
        ("organisation/name", False),
        ("organisation/na:me", False),
    ],
)
def test_a_colon_in_the_name_tells_a_class_from_the_others(text, expected):
    assert is_plugin(text) == expected
    assert not (is_plugin(text) and begins_as_checkpoint(text))


def test_a_folder_may_have_a_colon_in_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a:b").mkdir()
    assert not is_plugin("a:b")
    assert not is_plugin("a:b(layers=0;1)")
    assert begins_as_checkpoint("a:b(layers=0;1)")
