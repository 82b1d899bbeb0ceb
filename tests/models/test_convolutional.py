"""Convolutional networks: published sizes and shapes, images of all kinds, and folders that hold them."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from kd_env import tasks
from kd_env.errors import InputError
from kd_env.models.convolutional import CONVOLUTIONAL, ImageFormat, checkpoint, load
from kd_env.models.convolutional.building import build
from kd_env.models.convolutional.shufflenetv2 import _shuffled
from kd_env.models.encode import PixelReader
from kd_env.models.networks import build as build_by_name
from kd_env.models.pretrained import open_checkpoint
from kd_env.randomness import seeded

COLOUR = ImageFormat(3, 100, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
CIFAR10 = COLOUR._replace(num_classes=10)
SIZES = {
    ("resnet8", 100): 83_892,
    ("resnet8", 10): 78_042,
    ("resnet14", 10): 175_258,
    ("resnet20", 10): 272_474,
    ("resnet20", 100): 278_324,
    ("resnet32", 10): 466_906,
    ("resnet44", 10): 661_338,
    ("resnet56", 10): 855_770,
    ("resnet110", 10): 1_730_714,
    ("resnet8x4", 100): 1_233_540,
    ("resnet32x4", 100): 7_433_860,
    ("wrn(depth=16,widen=2)", 100): 703_284,
    ("wrn(depth=40,widen=1)", 100): 569_780,
    ("wrn(depth=40,widen=2)", 100): 2_255_156,
    ("vgg8", 100): 3_965_028,
    ("vgg11", 100): 9_277_284,
    ("vgg13", 100): 9_462_180,
    ("mobilenetv2", 100): 812_836,
    ("shufflenetv2", 100): 1_355_528,
}
"""Numbers of parameters of the released networks: RepDistiller's for 100 classes, He et al.'s with projections for 10."""
LAST_MAPS = {"resnet8": (64, 8), "wrn": (128, 8), "vgg8": (512, 4), "mobilenetv2": (1280, 2), "shufflenetv2": (1024, 4)}
"""Channels and side of the last map for images of 32 x 32."""
SMALL = ["resnet8(width=4)", "wrn(depth=10,widen=1)", "vgg8(width=4)", "mobilenetv2(width=0.25)", "shufflenetv2(width=0.5)"]
"""One network of each architecture."""


def format_of(task):
    return ImageFormat.of(task, "resnet8")


@pytest.mark.parametrize(("text", "classes"), SIZES)
def test_the_number_of_parameters_is_the_published_one(text, classes):
    with torch.device("meta"):
        network = build(text, COLOUR._replace(num_classes=classes))
    assert sum(parameter.numel() for parameter in network.parameters()) == SIZES[text, classes]


@pytest.mark.parametrize("text", LAST_MAPS)
def test_the_last_map_has_the_published_shape_and_its_mean_is_classified(text):
    network = build(text, COLOUR).eval()
    pixels = torch.rand(2, 3, 32, 32)
    output = network(pixels, extra_outputs=frozenset({"maps"}))
    channels, side = LAST_MAPS[text]
    assert output.maps.shape == (2, channels, side, side)
    torch.testing.assert_close(network.classifier(output.maps.mean((2, 3))), output.logits)
    assert torch.equal(output.features, output.maps.mean((2, 3)))
    assert network(pixels).maps is None, "only on request"
    stages = network.stages((pixels - network.mean) / network.deviation)
    assert torch.equal(list(stages.values())[-1], output.maps)
    assert all(
        before.shape[2] >= after.shape[2] for before, after in zip(list(stages.values())[:-1], list(stages.values())[1:], strict=True)
    )


@pytest.mark.parametrize("text", SMALL)
@pytest.mark.parametrize(("channels", "shape"), [(1, (8, 8)), (1, (28, 28)), (3, (6, 9)), (3, (64, 64))])
def test_images_of_all_kinds_are_read(text, channels, shape):
    network = build(text, ImageFormat(channels, 5, (0.5,) * channels, (0.25,) * channels))
    output = network(torch.rand(3, channels, *shape))
    assert output.logits.shape == (3, 5)
    assert output.logits.isfinite().all()
    assert output.features.shape[1] == network.classifier.in_features


def test_images_are_normalised_by_the_statistics_of_train():
    digits = tasks.load("digits")
    (mean,), (deviation,) = digits.channel_statistics
    assert mean == pytest.approx(digits.train.inputs.mean(dtype=np.float64), rel=1e-12)
    assert deviation == pytest.approx(digits.train.inputs.std(dtype=np.float64), rel=1e-12)
    network = build_by_name("resnet8(width=2)", digits, 0)
    torch.testing.assert_close(network.mean.flatten(), torch.tensor([mean]))
    brighter = dataclasses.replace(digits, train=dataclasses.replace(digits.train, inputs=digits.train.inputs * 3 + 1))
    other = build_by_name("resnet8(width=2)", brighter, 0)
    pixels = torch.from_numpy(digits.train.inputs[:4])
    torch.testing.assert_close(other.eval()(3 * pixels + 1).logits, network.eval()(pixels).logits, rtol=1e-4, atol=1e-5)
    black = dataclasses.replace(digits, train=dataclasses.replace(digits.train, inputs=np.zeros_like(digits.train.inputs)))
    assert black.channel_statistics == ((0.0,), (1.0,))


def test_vgg_halves_large_images_once_more():
    network = build("vgg8(width=2)", CIFAR10).eval()
    sides = {side: [maps.shape[2] for maps in network.stages(torch.zeros(1, 3, side, side)).values()] for side in (8, 32, 64)}
    assert sides == {8: [8, 4, 2, 1, 1], 32: [32, 16, 8, 4, 4], 64: [64, 32, 16, 8, 4]}


def test_a_shuffle_takes_the_channels_of_both_halves_in_turn():
    channels = torch.arange(6.0).view(1, 6, 1, 1)
    assert _shuffled(channels).flatten().tolist() == [0, 3, 1, 4, 2, 5]


def test_dropout_of_a_wide_residual_network_acts_in_training():
    network = build("wrn(depth=10,widen=1,dropout=0.5)", CIFAR10)
    pixels = torch.rand(4, 3, 8, 8)
    assert not torch.equal(network(pixels).logits, network(pixels).logits)
    network.eval()
    assert torch.equal(network(pixels).logits, network(pixels).logits)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("resnet20(depth=8)", "options: width"),
        ("resnet20(image=3)", "unexpected keyword argument 'image'; options: width"),
        ("resnet20(width=0)", "width=0.*at least"),
        ("resnet20(width=2.5)", r"width=2.5\): expected a whole number of at least 1"),
        ("vgg8(width=0)", r"width=0\): expected a whole number of at least 1"),
        ("wrn(widen=1.5)", r"widen=1.5\): expected a whole number of at least 1"),
        ("mobilenetv2(expansion=1.5)", r"expansion=1.5\): expected a whole number of at least 1"),
        ("resnet8x4(width=3)", "options: none"),
        ("wrn(depth=17)", r"wrn\(depth=17\): expected 6 n \+ 4 layers"),
        ("wrn(depth=4)", "expected 6 n"),
        ("wrn(dropout=1.5)", "cannot be built"),
        ("vgg8(width=big)", "width='big'"),
        ("mobilenetv2(width=0.01)", "width=0.01"),
        ("mobilenetv2(expansion=0)", "expansion=0"),
        ("shufflenetv2(width=3)", "width=3"),
        ("resne20", "did you mean 'resnet20'"),
    ],
)
def test_networks_that_cannot_be_are_named(digits_data, text, says):
    with pytest.raises(InputError, match=says):
        build_by_name(text, digits_data.task, 0)


def test_texts_are_refused(text_data):
    with pytest.raises(InputError, match=r"student 'resnet8' reads images, task .* is text; use tiny-bert"):
        build_by_name("resnet8", text_data.task, 0)


@pytest.mark.parametrize("text", SMALL)
def test_a_saved_network_is_read_back(digits_data, text, tmp_path):
    task = digits_data.task
    network = build_by_name(text, task, 1)
    network(torch.rand(8, 1, 8, 8))  # moves the running statistics
    checkpoint.save(tmp_path, network.eval(), task.class_names)
    again = load(tmp_path)
    assert again.state_dict().keys() == network.state_dict().keys()
    pixels = torch.rand(4, 1, 8, 8)
    assert torch.equal(again(pixels).logits, network(pixels).logits)
    assert not again.training
    assert all(parameter.requires_grad for parameter in again.parameters())
    opened = open_checkpoint(str(tmp_path), task)
    assert opened.config.id2label == dict(enumerate(task.class_names))
    with seeded(0):
        student = opened.network(4)
    assert student.classifier.out_features == 4
    assert torch.equal(student(pixels).features, network(pixels).features)
    assert PixelReader(3)(np.ones((2, 1, 8, 8), np.float32))["pixel_values"].shape == (2, 3, 8, 8)
    assert opened.reader()(np.ones((2, 3, 8, 8), np.float32))["pixel_values"].shape == (2, 1, 8, 8)


def rewrite(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def spoil_weights(folder, change):
    path = folder / "model.safetensors"
    save_file(change(load_file(path)), path)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda folder: rewrite(folder, network="resnet99"), "network 'resnet99'.*cannot be used"),
        (lambda folder: rewrite(folder, network="resnet8(width=8)"), "the weights cannot be read"),
        (lambda folder: rewrite(folder, network="vgg8(width=100000)"), "the weights cannot be read"),
        (lambda folder: rewrite(folder, num_channels="x"), "cannot be used"),
        (lambda folder: rewrite(folder, id2label={"0": "a", "2": "b"}), "cannot be used"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"no"), "the weights cannot be read"),
        (lambda folder: (folder / "model.safetensors").unlink(), "no model.safetensors"),
        (lambda folder: spoil_weights(folder, lambda weights: {**weights, "classifier.bias": torch.full((10,), torch.nan)}), "NaN"),
        (
            lambda folder: spoil_weights(folder, lambda weights: {k: weights[k] for k in weights if k != "classifier.bias"}),
            "the weights cannot be read",
        ),
    ],
)
def test_a_damaged_folder_is_named(digits_data, damage, says, tmp_path):
    checkpoint.save(tmp_path, build_by_name("resnet8(width=2)", digits_data.task, 0), digits_data.task.class_names)
    damage(tmp_path)
    with pytest.raises(InputError, match=says) as error:
        open_checkpoint(str(tmp_path), digits_data.task).classifier()
    assert str(tmp_path) in str(error.value)


def test_a_convolutional_checkpoint_has_no_layers_to_choose_from_and_reads_no_texts(digits_data, text_data, tmp_path):
    checkpoint.save(tmp_path, build_by_name("resnet8(width=2)", digits_data.task, 0), digits_data.task.class_names)
    with pytest.raises(InputError, match="a convolutional network has no layers to choose from; leave layers out"):
        build_by_name(f"{tmp_path}(layers=0;1)", digits_data.task, 0)
    with pytest.raises(InputError, match=r"reads image, task .* is text"):
        build_by_name(str(tmp_path), text_data.task, 0)


def test_every_architecture_is_measured_here():
    measured = {text.partition("(")[0] for text, _ in SIZES}
    assert measured == set(CONVOLUTIONAL) - {"timm"}
