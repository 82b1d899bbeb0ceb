"""Fashion-MNIST from a folder of its published files."""

import gzip

import numpy as np
import pytest

from kd_env import tasks
from kd_env.errors import InputError
from kd_env.tasks import fashion_mnist
from kd_env.tasks.task import SPLITS
from kd_env.testing import check_task


def idx(array):
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return gzip.compress(bytes([0, 0, 8, array.ndim]) + sizes + array.astype(np.uint8).tobytes(), mtime=0)


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for part, count in (("train", 700), ("t10k", 50)):
        (tmp_path / f"{part}-images-idx3-ubyte.gz").write_bytes(idx(rng.integers(256, size=(count, 6, 6))))
        (tmp_path / f"{part}-labels-idx1-ubyte.gz").write_bytes(idx(np.arange(count) % 10))
    return tmp_path


def refusal(folder):
    with pytest.raises(InputError) as error:
        fashion_mnist.load(str(folder))
    return str(error.value)


def test_it_is_read_as_published(folder):
    task = tasks.load("fashion-mnist", str(folder))
    assert {name: len(getattr(task, name)) for name in SPLITS} == {"train": 560, "reward": 70, "validation": 70, "test": 50}
    assert task.test.inputs.shape == (50, 1, 6, 6)
    assert task.test.inputs.dtype == np.float32
    raw = fashion_mnist.read_idx(folder / "t10k-images-idx3-ubyte.gz", 3)
    assert (np.rint(task.test.inputs[:, 0] * 255) == raw).all()
    assert task.test.inputs.max() == 1.0
    assert list(task.test.labels) == [i % 10 for i in range(50)]
    assert (np.bincount(task.reward.labels) == 7).all()
    check_task(lambda: tasks.load("fashion-mnist", str(folder)))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"not gzip", "damaged (Not a gzipped file"),
        (idx(np.zeros((50, 6, 6)))[:-12], "damaged (Compressed file ended"),
        (gzip.compress(b"\0\0\x08\x03", mtime=0), "not an idx file of bytes with 3 axes, or cut off; download the file again"),
        (idx(np.zeros(50)), "not an idx file of bytes with 3 axes"),
        (gzip.compress(gzip.decompress(idx(np.zeros((50, 6, 6))))[:-1], mtime=0), "not an idx file of bytes with 3 axes, or cut off"),
        (b"", "not an idx file"),
        (idx(np.zeros((49, 6, 6))), "49 images and 50 labels of t10k; download the files again"),
        (None, "t10k-images-idx3-ubyte.gz cannot be read (No such file or directory); the folder must hold the four published .gz files"),
    ],
    ids=["not gzip", "cut off", "no sizes", "labels for images", "a byte short", "empty", "one image too few", "missing"],
)
def test_a_damaged_image_file_is_named(content, message, folder):
    file = folder / "t10k-images-idx3-ubyte.gz"
    file.unlink()
    if content is not None:
        file.write_bytes(content)
    line = refusal(folder)
    assert message in line
    assert str(folder) in line


def test_a_label_outside_the_classes_is_named(folder):
    (folder / "t10k-labels-idx1-ubyte.gz").write_bytes(idx(np.arange(50) % 11))
    assert "t10k-labels-idx1-ubyte.gz: label 10 of image 10, expected 0..9; download the file again" in refusal(folder)
