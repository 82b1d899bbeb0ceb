"""``images:PATH``: a folder of images of your own, and the task that it becomes."""

import numpy as np
import pytest
from PIL import Image

from kd_env import tasks
from kd_env.errors import InputError
from kd_env.tasks.task import SPLITS
from kd_env.testing import check_task

RNG = np.random.default_rng(0)


def write(folder, role, count, classes=("cat", "dog"), shape=(6, 5)):
    for i in range(count):
        place = folder / role / classes[i % len(classes)]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(RNG.integers(256, size=shape, dtype=np.uint8)).save(place / f"{i:03d}.png")


@pytest.fixture
def folder(tmp_path):
    write(tmp_path, "train", 200)
    write(tmp_path, "test", 10)
    (tmp_path / "train" / "cat" / ".hidden").touch()
    return tmp_path


def refusal(folder):
    with pytest.raises(InputError) as error:
        tasks.load(f"images:{folder}")
    assert "\n" not in str(error.value)
    return str(error.value)


def test_classes_are_folders_and_pixels_are_what_they_were(folder):
    write(folder, "val", 2)
    task = tasks.load(f"images:{folder}")
    assert {name: len(getattr(task, name)) for name in SPLITS} == {"train": 72, "reward": 64, "validation": 64, "test": 10}
    assert task.class_names == ("cat", "dog")
    assert task.test.inputs.shape == (10, 1, 6, 5)
    assert list(task.test.labels) == [0] * 5 + [1] * 5
    with Image.open(folder / "test" / "dog" / "001.png") as image:
        assert (np.rint(task.test.inputs[5, 0] * 255) == np.asarray(image)).all()
    assert task.notes == (
        "not read: val (folders are train, reward, validation, dev, test)",
        "carved from train: reward 64, validation 64; left: 72",
        "validation has 64 examples, so an accuracy on it has a standard error of up to 0.062",
    )
    check_task(lambda: tasks.load(f"images:{folder}"))


def test_one_colour_image_makes_the_task_colour(folder):
    write(folder, "train", 1, ("cat",), (6, 5, 3))
    task = tasks.load(f"images:{folder}")
    assert task.train.inputs.shape[1:] == (3, 6, 5)
    assert (task.test.inputs[:, 0] == task.test.inputs[:, 2]).all(), "grey stays grey"


def test_metric_is_an_option(folder):
    task = tasks.load(f"images:{folder}(metric=f1)")
    assert (task.metric, task.name) == ("f1", f"images:{folder}(metric=f1)")


def test_an_image_that_cannot_be_used_is_named(folder):
    assert "none does not exist" in refusal(folder / "none")
    assert "0 classes in train; expected images as train/CLASS/NAME.png" in refusal(folder / "test")
    file = folder / "test" / "dog" / "001.png"
    whole = file.read_bytes()
    file.write_bytes(whole[:-40])
    assert f"{file} cannot be read as an image (" in refusal(folder)
    file.write_text("not an image")
    assert f"{file} cannot be read as an image (UnidentifiedImageError" in refusal(folder)
    Image.fromarray(np.zeros((6, 6), dtype=np.uint8)).save(file)
    assert f"{file}: 6 x 6 pixels, expected 5 x 6 as {folder}/train/cat/000.png; scale all images to one size" in refusal(folder)
    file.write_bytes(whole)
    write(folder, "test", 1, ("cow",))
    assert "test/cow/000.png: class 'cow' is not among those of train (cat, dog)" in refusal(folder)
    (folder / "test" / "cow" / "000.png").unlink()
    (folder / "dev").mkdir()
    assert f"{folder}/dev: no images; expected dev/CLASS/NAME.png" in refusal(folder)
