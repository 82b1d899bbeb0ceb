"""Transformers' convolutional classifiers as networks: outputs, stages, new heads, inputs, few bits, and what they cannot do."""

import pytest
import torch
from image_checkpoints import CONFIGS, NORMALISED, write_image_checkpoint
from transformers import AutoImageProcessor, AutoModelForImageClassification

from kd_env import tasks
from kd_env.errors import InputError
from kd_env.models.convolutional_encoder import ARCHITECTURES
from kd_env.models.modes import running_statistics
from kd_env.models.networks import build, reader
from kd_env.models.pretrained import open_checkpoint
from kd_env.models.saving import save
from kd_env.teachers.checkpoint import CheckpointTeacher

MAPS = frozenset({"maps", "maps.all", "maps.stem"})
SIZES = {  # channels and side of the stem and of each stage, of an image of 32 x 32 pixels
    "resnet": [(8, 8), (8, 8), (16, 4), (16, 2), (24, 1)],
    "regnet": [(8, 16), (8, 8), (16, 4), (16, 2), (24, 1)],
    "convnext": [(8, 16), (8, 16), (16, 8), (16, 4), (24, 2)],
    "convnextv2": [(8, 16), (8, 16), (16, 8), (16, 4), (24, 2)],
    "mobilenet_v1": [(8, 16), (16, 16), (32, 8), (64, 4), (128, 2), (256, 1)],
    "mobilenet_v2": [(8, 8), (8, 8), (8, 4), (24, 2), (80, 1)],
    "efficientnet": [(8, 16), (8, 16), (8, 8), (16, 4), (32, 2), (80, 1)],
}


@pytest.fixture(scope="module")
def task():
    return tasks.load("digits")


@pytest.fixture(scope="module")
def folders(task, tmp_path_factory):
    place = tmp_path_factory.mktemp("checkpoints")
    return {name: write_image_checkpoint(place / name, name, task) for name in CONFIGS}


def test_all_architectures_are_tested():
    assert sorted(CONFIGS) == sorted(ARCHITECTURES)


@pytest.mark.parametrize("name", CONFIGS)
def test_outputs_are_those_of_transformers(name, folders, task):
    pixels = reader(folders[name], task)(task.train.inputs[:5])["pixel_values"]
    assert pixels.shape == (5, 3, 32, 32)
    network, expected = CheckpointTeacher(folders[name], task).network, AutoModelForImageClassification.from_pretrained(folders[name])
    with torch.no_grad():
        output, hidden = network(pixels, extra_outputs=MAPS), expected(pixels, output_hidden_states=True)
    torch.testing.assert_close(output.logits, hidden.logits, rtol=1e-5, atol=1e-6)
    assert output.logits.std(0).max() > 1e-4, "the images are told apart"
    torch.testing.assert_close(network.classifier(output.features), output.logits)
    assert list(output.stages) == ["stem", *(f"stage{number}" for number in range(1, len(SIZES[name])))]
    assert [(maps.shape[1], maps.shape[2]) for maps in output.stages.values()] == SIZES[name]
    torch.testing.assert_close(output.stages["stem"], hidden.hidden_states[0], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(list(output.stages.values())[-1], hidden.hidden_states[-1], rtol=1e-5, atol=1e-6)
    if name in NORMALISED:
        assert output.maps is None
    else:
        torch.testing.assert_close(output.maps.mean((2, 3)), output.features, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_student_has_the_body_of_the_checkpoint_and_a_new_head(name, folders, task):
    network, again, other = (build(folders[name], task, seed) for seed in (0, 0, 1))
    body = AutoModelForImageClassification.from_pretrained(folders[name]).base_model.state_dict()
    assert all(torch.equal(value, body[key]) for key, value in network.model.base_model.state_dict().items())
    assert torch.equal(network.classifier.weight, again.classifier.weight)
    assert not torch.equal(network.classifier.weight, other.classifier.weight)
    assert network.training
    assert bool(running_statistics(network)) == (name not in NORMALISED)
    assert network(**reader(folders[name], task)(task.train.inputs[:2])).maps is None, "only on request"


def test_the_preprocessing_says_the_size_of_the_images(folders, task, tmp_path):
    """A ConvNeXt's configuration has 224 where nobody has set it, and its network reads images of any size."""
    checkpoint = open_checkpoint(folders["convnext"], task)
    assert (checkpoint.config.image_size, checkpoint.reader().side) == (224, 32)
    assert checkpoint.reader().mean == (0.4, 0.4, 0.4)


def test_images_that_are_too_small_are_refused(task, tmp_path):
    folder = write_image_checkpoint(tmp_path / "convnext", "convnext", task)
    (tmp_path / "convnext" / "preprocessor_config.json").write_text('{"size": {"height": 8, "width": 8}, "do_normalize": false}')
    message = r"does not read images of 8 x 8 pixels \(.*\); set a larger size in its preprocessor_config.json"
    with pytest.raises(InputError, match=message):
        build(folder, task, 0)


def test_dropout_can_be_set_and_layers_cannot(folders, task):
    rates = [
        module.p for module in build(f"{folders['mobilenet_v1']}(dropout=0)", task, 0).modules() if isinstance(module, torch.nn.Dropout)
    ]
    assert rates == [0.0]
    with pytest.raises(InputError, match=r"a convolutional network has no layers to choose from; leave layers out"):
        build(f"{folders['resnet']}(layers=0;1)", task, 0)


@pytest.mark.parametrize("bits", ["", "(bits=4)"])
@pytest.mark.parametrize("name", CONFIGS)
def test_one_for_grey_images_is_saved_for_images_in_colour(name, bits, task, tmp_path):
    """Transformers' pipelines give three channels."""
    student = write_image_checkpoint(tmp_path / "grey", name, task, channels=1) + bits
    network, read = build(student, task, 0).eval(), reader(student, task)
    save(tmp_path / "saved", network, task, read)
    with torch.no_grad():
        expected = network(**read(task.train.inputs[:5])).logits
        again = CheckpointTeacher(str(tmp_path / "saved"), task)(task.train.inputs[:5]).logits
    torch.testing.assert_close(again, expected, rtol=1e-3, atol=1e-4)


def test_transformers_reads_its_preprocessing(task, folders, tmp_path):
    save(tmp_path, build(folders["resnet"], task, 0), task, reader(folders["resnet"], task))
    processor, model = AutoImageProcessor.from_pretrained(tmp_path), AutoModelForImageClassification.from_pretrained(tmp_path)
    pixels = processor(torch.full((3, 8, 8), 153, dtype=torch.uint8), return_tensors="pt")["pixel_values"]  # 0.6 of 255
    torch.testing.assert_close(pixels, torch.full((1, 3, 32, 32), 2 / 3))
    assert model.config.id2label == dict(enumerate(task.class_names))
