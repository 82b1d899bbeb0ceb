"""``tiny-imagenet``: 200 classes of colour images of 64 x 64 (Le and Yang 2015), from the published folder or from the hub.

The folder is ``tiny-imagenet-200``: ``wnids.txt``, ``words.txt``, ``train/CLASS/images/`` and ``val/``. Its test images have no labels, so
``val`` is test, as in papers. 100,000 train and 10,000 test images; in float32 they take 5 GB, and 1.4 GB with ``size=32``.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from kd_env import spec
from kd_env.errors import InputError
from kd_env.paths import require_file
from kd_env.tasks.folders import require_folder
from kd_env.tasks.memory import require_memory
from kd_env.tasks.pictures import read_picture
from kd_env.tasks.published_images import RESIDUAL, from_hub, image_task, in_unit_range
from kd_env.tasks.task import Split, Task, task_name

FOLDER = "tiny-imagenet-200"
HUB = "zh-plus/tiny-imagenet"
SIDE = 64


def load(data_dir: str | None = None, metric: str = "accuracy", size: int = SIDE, views: int = 1) -> Task:
    """Load the folder, with images scaled to ``size`` pixels, and some stored views of each training image.

    Raises:
        InputError: a file is missing or damaged, or names an unknown class; or the images need more memory than the machine has.
    """
    spec.numbers("tiny-imagenet", least=8, most=256, whole=True, size=size)
    if data_dir is None:
        if size != SIDE:
            raise InputError(f"task 'tiny-imagenet': size={size} is for a folder; name one, as --data-dir PATH, or leave size out")
        content = from_hub("tiny-imagenet", HUB, "image", ("label",), {"train": "train", "test": "valid"})
        available = {role: Split(in_unit_range(content[role][0]), content[role][1]) for role in ("train", "test")}
        names, sources = content["names"][0], {"train": f"train of {HUB}", "test": f"valid of {HUB}"}
    else:
        folder = require_folder(data_dir, "tiny-imagenet")
        folder = folder / FOLDER if (folder / FOLDER).is_dir() else folder
        classes = _lines(folder / "wnids.txt")
        available = {"train": _split(_train_files(folder, classes), size), "test": _split(_val_files(folder, classes), size)}
        names, sources = _class_names(folder, classes), {"train": "train/", "test": "val/"}
    options = {"metric": metric, "size": size, "views": views}
    full_name = task_name("tiny-imagenet", options, {"metric": "accuracy", "size": SIDE, "views": 1})
    return image_task(full_name, available, sources, names, metric, RESIDUAL, views=views)


def _lines(path: Path) -> list[str]:
    if not path.is_file():
        raise InputError(f"{path}: no such file; the folder of the task must be the published {FOLDER}")
    require_file(path)
    lines = [line.strip() for line in path.read_text(errors="replace").split("\n") if line.strip()]
    if not lines:
        raise InputError(f"{path}: it is empty; download the folder again")
    return lines


def _class_names(folder: Path, classes: list[str]) -> list[str]:
    """Return the first word of each class, with its id where several classes have that word, or where there is none."""
    words = dict(line.split("\t", 1) for line in _lines(folder / "words.txt") if "\t" in line)
    first = [words.get(name, name).split(",")[0].strip() for name in classes]
    return [word if first.count(word) == 1 else f"{word} {name}" for word, name in zip(first, classes, strict=True)]


def _train_files(folder: Path, classes: list[str]) -> list[tuple[Path, int]]:
    files = []
    for number, name in enumerate(classes):
        images = sorted((folder / "train" / name / "images").glob("*.JPEG"))
        if not images:
            raise InputError(f"{folder / 'train' / name / 'images'}: no images; download the folder again")
        files += [(path, number) for path in images]
    return files


def _val_files(folder: Path, classes: list[str]) -> list[tuple[Path, int]]:
    number, path = {name: position for position, name in enumerate(classes)}, folder / "val" / "val_annotations.txt"
    files, rows = [], dict[str, int]()
    for row, line in enumerate(_lines(path), start=1):
        name, *rest = line.split("\t")
        if not rest or rest[0] not in number:
            raise InputError(f"{path}, line {row}: expected the name of an image and of a class in wnids.txt, separated by a tab")
        image = folder / "val" / "images" / name
        if Path(name).name != name:
            raise InputError(f"{path}, line {row}: {name!r} is not the name of a file in val/images; download the folder again")
        if name in rows:
            raise InputError(f"{path}, line {row}: {name} again, as in line {rows[name]}; keep one of the lines")
        rows[name] = row
        files.append((image, number[rest[0]]))
    for image, _ in files:
        if not image.is_file():
            raise InputError(f"{image}: no such file, and {path.name}, line {rows[image.name]}, names it; download the folder again")
    return files


def _split(files: list[tuple[Path, int]], size: int) -> Split:
    require_memory("task tiny-imagenet", len(files), 3, size, size, "scale them to a smaller size, as with size=32")
    inputs = np.empty((len(files), 3, size, size), dtype=np.float32)
    for row, (path, _) in enumerate(files):
        inputs[row] = read_picture(path, (size, size)).channels(colour=True)
    return Split(inputs, np.array([number for _, number in files], dtype=np.int64))
