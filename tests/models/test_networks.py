"""The built-in networks: sizes, seeds, and what is refused."""

import dataclasses

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from kd_env.errors import InputError
from kd_env.models.encode import take
from kd_env.models.networks import NETWORKS, build
from kd_env.student.optimizer import OptimizerOptions
from kd_env.student.student import Student
from kd_env.tasks.task import SPLITS, Split

CPU = torch.device("cpu")
IMAGE = [
    "mlp(width=8)",
    "mlp(width=8,depth=2,dropout=0.4)",
    "tiny-vit(width=8,layers=1,dropout=0.4)",
    "resnet8(width=4)",
    "wrn(depth=10,widen=1,dropout=0.4)",
    "vgg8(width=4)",
    "mobilenetv2(width=0.25)",
    "shufflenetv2(width=0.5)",
]
TEXT = ["tiny-bert(width=8,layers=1,dropout=0.4)"]
EVERY = [("digits_data", text) for text in IMAGE] + [("text_data", text) for text in TEXT]


@pytest.mark.parametrize(("data", "text"), EVERY)
def test_the_classifier_reads_the_features_and_examples_do_not_mix(request, data, text):
    material = request.getfixturevalue(data)
    network = build(text, material.task, 3).double().eval()
    student = Student(network, OptimizerOptions(), CPU, "float64")
    inputs = student.cast(take(material.inputs["train"], slice(0, 6), CPU))
    output = network(**inputs)
    assert output.logits.shape == (6, material.task.num_classes)
    torch.testing.assert_close(student.classifier(output.features), output.logits, rtol=0, atol=1e-12)
    alone = torch.cat([network(**take(inputs, slice(i, i + 1), CPU)).logits for i in range(6)])
    torch.testing.assert_close(alone, output.logits, rtol=0, atol=1e-10)
    cross_entropy(output.logits, torch.zeros(6, dtype=torch.long)).backward()
    assert all(parameter.grad is not None for parameter in network.parameters()), "every parameter is trained"


@pytest.mark.parametrize(("data", "text"), EVERY)
def test_equal_seeds_build_equal_networks_and_leave_the_global_generator_alone(request, data, text):
    task = request.getfixturevalue(data).task
    before = torch.get_rng_state()
    first = build(text, task, 5).state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(3)
    again, other = build(text, task, 5).state_dict(), build(text, task, 6).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_the_mlp_has_the_size_it_says(digits_data):
    def size(text):
        return sum(parameter.numel() for parameter in build(text, digits_data.task, 0).parameters())

    assert size("mlp") == size("mlp(width=24)") == 64 * 24 + 24 + 24 * 10 + 10
    assert size("mlp(width=5,depth=3,dropout=0.5)") == 64 * 5 + 5 + 2 * (25 + 5) + 5 * 10 + 10


@pytest.mark.parametrize(
    ("data", "text", "says"),
    [
        ("digits_data", "mpl", "did you mean 'mlp'"),
        ("digits_data", "mlp(size=3)", "size.*options: width, depth, dropout"),
        ("digits_data", "mlp(width=wide)", "width='wide'"),
        ("digits_data", "mlp(width=true)", "width=True"),
        ("digits_data", "mlp(width=-3)", "width=-3"),
        ("digits_data", "mlp(width=2.5)", "mlp"),
        ("digits_data", "mlp(dropout=1.5)", "mlp.*cannot be built"),
        ("digits_data", "mlp(width=2.5)", r"width=2\.5\): expected a whole number of at least 1"),
        ("digits_data", "tiny-vit(layers=1.5)", r"layers=1\.5\): expected a whole number of at least 1"),
        ("digits_data", "tiny-vit(heads=1.0)", r"heads=1\.0\): expected a whole number of at least 1"),
        ("digits_data", "tiny-bert", "reads text.*use tiny-vit or resnet20"),
        ("text_data", "tiny-bert(width=9,heads=2)", "cannot be built"),
        ("text_data", "mlp", "reads images.*use tiny-bert"),
        ("text_data", "tiny-vit", "reads images.*use tiny-bert"),
    ],
)
def test_students_that_cannot_be_are_named(request, data, text, says):
    with pytest.raises(InputError, match=says):
        build(text, request.getfixturevalue(data).task, 0)


@pytest.mark.parametrize(("side", "patch"), [(8, 2), (14, 2), (13, 1), (28, 7), (30, 6)])
def test_the_patches_of_a_tiny_vit_cover_the_image(side, patch, digits_data):
    images = np.random.default_rng(0).random((8, 1, side, side), dtype=np.float32)
    splits = {name: Split(images, np.arange(8) % 10) for name in SPLITS}
    network = build("tiny-vit(width=8,layers=1)", dataclasses.replace(digits_data.task, **splits), 0)
    assert network.model.config.patch_size == patch
    pixels = torch.from_numpy(images).requires_grad_()
    network(pixel_values=pixels).logits.square().sum().backward()
    assert (pixels.grad.abs().amax((0, 1)) > 0).all()


def test_a_side_without_divisors_is_refused(digits_data):
    images = np.zeros((8, 1, 67, 67), dtype=np.float32)
    splits = {name: Split(images, np.arange(8) % 10) for name in SPLITS}
    with pytest.raises(InputError, match=r"67 x 67 patches are too many; the side 67 has few divisors: scale the images"):
        build("tiny-vit", dataclasses.replace(digits_data.task, **splits), 0)


def test_every_architecture_is_tried_here():
    of_one_class = {name for name in NETWORKS if name.startswith(("resnet", "vgg"))} - {"resnet8", "vgg8"}
    assert {text.partition("(")[0] for _, text in EVERY} == set(NETWORKS) - of_one_class - {"timm"}
