"""CIFAR, Tiny ImageNet and MNIST from folders in their published layouts, and from the hub."""

import gzip
import pickle
import sys
import types

import numpy as np
import pytest
from PIL import Image
from published_files import cifar10, cifar100, images, python2, write

from kd_env import tasks
from kd_env.errors import InputError
from kd_env.tasks import memory, published_images
from kd_env.tasks.task import SPLITS
from kd_env.testing import check_task


@pytest.mark.parametrize("writer", [python2, lambda content: pickle.dumps(content, 2), lambda content: pickle.dumps(content, 4)])
def test_cifar10_is_read_as_published(tmp_path, writer):
    task = tasks.load("cifar10", str(cifar10(tmp_path, writer)))
    assert {name: len(getattr(task, name)) for name in SPLITS} == {"train": 322, "reward": 64, "validation": 64, "test": 40}
    assert task.class_names[:3] == ("airplane", "automobile", "bird")
    assert task.test.inputs.shape == (40, 3, 32, 32)
    assert task.test.inputs.dtype == np.float32
    np.testing.assert_array_equal(np.rint(task.test.inputs[0] * 255), images(40, 5)[0].reshape(3, 32, 32), "red, green, blue, by rows")
    assert list(task.test.labels) == [row % 10 for row in range(40)]
    assert (task.defaults.student, task.defaults.pool) == ("resnet8", "image/resnets")
    everything = np.concatenate([task.train.inputs, task.reward.inputs, task.validation.inputs])
    expected = np.concatenate([images(90, number) for number in range(5)])
    assert sorted(row.tobytes() for row in np.rint(everything * 255).astype(np.uint8).reshape(450, -1)) == sorted(map(bytes, expected))


def test_the_folder_of_the_files_may_be_named_too(tmp_path):
    task = tasks.load("cifar10", str(cifar10(tmp_path) / "cifar-10-batches-py"))
    assert task.fingerprint == tasks.load("cifar10", str(tmp_path)).fingerprint
    assert task.name == "cifar10"
    check_task(lambda: tasks.load("cifar10", str(tmp_path)))


def test_cifar100_has_its_superclasses_as_groups(tmp_path):
    task = tasks.load("cifar100", str(cifar100(tmp_path)))
    assert (task.num_classes, task.group_names) == (6, ("flowers", "fish"))
    assert (task.train.groups == task.train.labels // 3).all()
    assert len(task.test) == 30


@pytest.mark.parametrize(
    ("file", "content", "says"),
    [
        ("data_batch_2", None, "data_batch_2: no such file"),
        ("data_batch_2", b"no pickle", "data_batch_2: not a pickle of arrays"),
        ("data_batch_2", b"", "not a pickle of arrays"),
        ("data_batch_2", [1, 2], "data_batch_2: a pickle of list, expected a dict"),
        ("data_batch_2", {"labels": [1]}, "no images of 3072 bytes under 'data'"),
        ("data_batch_2", {"data": images(3)[:, :100], "labels": [0] * 3}, "no images of 3072 bytes"),
        ("data_batch_2", {"data": images(3), "labels": [0] * 2}, "'labels' is not a list of 3 numbers"),
        ("data_batch_2", {"data": images(3), "labels": [0, 10, 1]}, "labels 10 of image 1, expected 0..9"),
        ("data_batch_2", {"data": images(3), "labels": [0, "a", 1]}, "'labels' is not a list of 3 numbers"),
        ("batches.meta", {"label_names": 3}, "batches.meta: no list 'label_names' of names"),
    ],
)
def test_a_damaged_cifar_file_is_named(tmp_path, file, content, says):
    path = cifar10(tmp_path) / "cifar-10-batches-py" / file
    path.unlink()
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        write(path, content)
    with pytest.raises(InputError) as error:
        tasks.load("cifar10", str(tmp_path))
    assert says in str(error.value)
    assert str(path) in str(error.value)


def tiny_imagenet(folder, classes=("n01", "n02", "n03"), count=70):
    place, rng = folder / "tiny-imagenet-200", np.random.default_rng(0)
    for number, name in enumerate(classes):
        (place / "train" / name / "images").mkdir(parents=True)
        for row in range(count):
            pixels = rng.integers(256, size=(64, 64, 3)).astype(np.uint8)
            grey = Image.fromarray(pixels).convert("L") if number == row == 0 else Image.fromarray(pixels)
            grey.save(place / "train" / name / "images" / f"{name}_{row}.JPEG")
        (place / "train" / name / f"{name}_boxes.txt").write_text("")
    (place / "val" / "images").mkdir(parents=True)
    rows = []
    for row in range(12):
        Image.fromarray(rng.integers(256, size=(64, 64, 3)).astype(np.uint8)).save(place / "val" / "images" / f"val_{row}.JPEG")
        rows.append(f"val_{row}.JPEG\t{classes[row % 3]}\t0\t0\t63\t63")
    (place / "val" / "val_annotations.txt").write_text("\n".join(rows) + "\n")
    (place / "wnids.txt").write_text("\n".join(classes) + "\n")
    (place / "words.txt").write_text("n01\tgoldfish, Carassius\nn02\tcrane\nn03\tcrane, bird\nn99\tentity\n")
    return folder


def annotate(place, line):
    """Add a line to the labels of the test images."""
    with (place / "val" / "val_annotations.txt").open("a") as file:
        file.write(line + "\n")


def test_tiny_imagenet_is_read_as_published(tmp_path):
    task = tasks.load("tiny-imagenet", str(tiny_imagenet(tmp_path)))
    assert {name: len(getattr(task, name)) for name in SPLITS} == {"train": 82, "reward": 64, "validation": 64, "test": 12}
    assert task.class_names == ("goldfish", "crane n02", "crane n03")
    assert task.test.inputs.shape == (12, 3, 64, 64)
    assert list(task.test.labels) == [row % 3 for row in range(12)]
    with Image.open(tmp_path / "tiny-imagenet-200" / "val" / "images" / "val_4.JPEG") as image:
        np.testing.assert_allclose(task.test.inputs[4], np.asarray(image).transpose(2, 0, 1) / 255, atol=1e-6)
    small = tasks.load(f"tiny-imagenet(size=16,data_dir={tmp_path})")
    assert small.test.inputs.shape == (12, 3, 16, 16)
    assert small.name == "tiny-imagenet(size=16)"


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (
            lambda place: (place / "wnids.txt").unlink(),
            "wnids.txt: no such file; the folder of the task must be the published tiny",
        ),
        (lambda place: (place / "wnids.txt").write_text("\n"), "wnids.txt: it is empty"),
        (lambda place: (place / "wnids.txt").write_text("n01\nn77\n"), "n77"),
        (
            lambda place: (place / "val" / "val_annotations.txt").write_text("a.JPEG\tn01\nb.JPEG n02\n"),
            "val_annotations.txt, line 2: expected",
        ),
        (lambda place: (place / "val" / "images" / "val_3.JPEG").write_bytes(b"no"), "val_3.JPEG cannot be read as an image"),
        (
            lambda place: (place / "val" / "images" / "val_3.JPEG").unlink(),
            "val_3.JPEG: no such file, and val_annotations.txt, line 4, names it",
        ),
        (
            lambda place: annotate(place, "val_3.JPEG\tn01"),
            "val_annotations.txt, line 13: val_3.JPEG again, as in line 4; keep one of the lines",
        ),
        (
            lambda place: annotate(place, "../../train/n01/images/n01_0.JPEG\tn01"),
            "line 13: '../../train/n01/images/n01_0.JPEG' is not the name of a file in val/images",
        ),
    ],
)
def test_a_damaged_tiny_imagenet_is_named(tmp_path, damage, says):
    damage(tiny_imagenet(tmp_path) / "tiny-imagenet-200")
    with pytest.raises(InputError) as error:
        tasks.load("tiny-imagenet", str(tmp_path))
    assert says in str(error.value)


@pytest.mark.parametrize("size", [7, 1000, 2.5])
def test_an_impossible_size_is_refused(size, tmp_path):
    with pytest.raises(InputError, match="size"):
        tasks.load(f"tiny-imagenet(size={size})", str(tmp_path))


def test_mnist_is_read_as_published(tmp_path):
    for part, count in (("train", 300), ("t10k", 20)):
        pixels = np.random.default_rng(count).integers(256, size=(count, 8, 8)).astype(np.uint8)
        for name, array in ((f"{part}-images-idx3-ubyte", pixels), (f"{part}-labels-idx1-ubyte", (np.arange(count) % 10).astype(np.uint8))):
            header = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
            (tmp_path / f"{name}.gz").write_bytes(gzip.compress(header + array.tobytes()))
    task = tasks.load("mnist", str(tmp_path))
    assert task.name == "mnist"
    assert task.class_names == tuple("0123456789")
    assert (len(task.test), task.test.inputs.shape[1:]) == (20, (1, 8, 8))


class FakePart:
    """What ``datasets`` returns for a split: columns by name, and the names of classes."""

    def __init__(self, count, seed):
        pixels = images(count, seed).reshape(count, 3, 32, 32).transpose(0, 2, 3, 1)
        self.columns = {"img": [Image.fromarray(row) for row in pixels], "label": [row % 10 for row in range(count)]}
        self.features = {"label": types.SimpleNamespace(names=[f"class{k}" for k in range(10)])}

    def __getitem__(self, name):
        return self.columns[name]


def test_without_a_folder_the_set_comes_from_the_hub(monkeypatch):
    asked = []

    def load_dataset(repository, split):
        asked.append((repository, split))
        return FakePart(300 if split == "train" else 20, len(asked))

    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load_dataset))
    task = tasks.loading._load("cifar10")
    assert asked == [("uoft-cs/cifar10", "train"), ("uoft-cs/cifar10", "test")]
    assert task.class_names[9] == "class9"
    np.testing.assert_array_equal(np.rint(task.test.inputs[3] * 255), images(20, 2)[3].reshape(3, 32, 32))


def test_a_hub_that_cannot_be_reached_is_an_input_error(monkeypatch):
    def load_dataset(*_arguments, **_options):
        raise ConnectionError("no network")

    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load_dataset))
    with pytest.raises(InputError, match=r"'cifar100': uoft-cs/cifar100 cannot be loaded from the hub \(ConnectionError: no network\)"):
        tasks.load("cifar100")


def test_values_are_in_the_unit_range():
    assert published_images.in_unit_range(np.array([0, 51, 255], np.uint8)).tolist() == pytest.approx([0.0, 0.2, 1.0])


def test_tiny_imagenet_of_a_size_that_needs_more_memory_than_the_machine_has_is_refused(tmp_path, monkeypatch):
    tiny_imagenet(tmp_path)
    monkeypatch.setattr(memory, "machine_memory", lambda: 4 * 210 * 3 * 64**2)
    assert tasks.load("tiny-imagenet", str(tmp_path)).test.inputs.shape[1:] == (3, 64, 64)
    with pytest.raises(
        InputError, match=r"^task tiny-imagenet: 210 images of 65 x 65 pixels need .*; scale them to a smaller size, as with"
    ):
        tasks.load("tiny-imagenet(size=65)", str(tmp_path))
