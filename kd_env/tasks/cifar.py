"""``cifar10`` and ``cifar100``: colour images of 32 x 32 (Krizhevsky 2009), from a folder of the published files, or from the hub.

The files are those of the "python version": ``cifar-10-batches-py`` and ``cifar-100-python``. They are pickles, and are read without
running what a pickle may ask for: only arrays of numbers, texts and lists are accepted. 50,000 train and 10,000 test images. The groups of
``cifar100`` are its 20 superclasses.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from kd_env.errors import InputError
from kd_env.paths import require_file
from kd_env.tasks.array_pickle import read_pickle
from kd_env.tasks.folders import require_folder
from kd_env.tasks.published_images import RESIDUAL, from_hub, image_task, in_unit_range
from kd_env.tasks.task import Split, Task, task_name

CHANNELS, SIDE = 3, 32


class Source(NamedTuple):
    """The files of a set.

    Attributes:
        folder: name of the folder in the published archive.
        train: files of the training examples.
        test: file of the test examples.
        meta: file of the names.
        labels: keys of the labels, of the classes first, then of the groups.
        names: keys of their names.
        hub: id on the hub.
        hub_labels: columns of the labels on the hub.
    """

    folder: str
    train: tuple[str, ...]
    test: str
    meta: str
    labels: tuple[str, ...]
    names: tuple[str, ...]
    hub: str
    hub_labels: tuple[str, ...]


SOURCES = {
    "cifar10": Source(
        "cifar-10-batches-py",
        tuple(f"data_batch_{number}" for number in range(1, 6)),
        "test_batch",
        "batches.meta",
        ("labels",),
        ("label_names",),
        "uoft-cs/cifar10",
        ("label",),
    ),
    "cifar100": Source(
        "cifar-100-python",
        ("train",),
        "test",
        "meta",
        ("fine_labels", "coarse_labels"),
        ("fine_label_names", "coarse_label_names"),
        "uoft-cs/cifar100",
        ("fine_label", "coarse_label"),
    ),
}


def cifar10(data_dir: str | None = None, metric: str = "accuracy", views: int = 1) -> Task:
    """Colour images of 32 x 32 of animals and vehicles, ten classes; from the published files or from the hub."""
    return _load("cifar10", data_dir, metric, views)


def cifar100(data_dir: str | None = None, metric: str = "accuracy", views: int = 1) -> Task:
    """Colour images of 32 x 32, a hundred classes in 20 superclasses, which are the groups; from the published files or from the hub."""
    return _load("cifar100", data_dir, metric, views)


def _load(name: str, data_dir: str | None, metric: str, views: int) -> Task:
    source = SOURCES[name]
    if data_dir is None:
        content = from_hub(name, source.hub, "img", source.hub_labels, {"train": "train", "test": "test"})
        parts, names = {role: content[role] for role in ("train", "test")}, content["names"]
        sources = {role: f"{role} of {source.hub}" for role in parts}
    else:
        folder = require_folder(data_dir, name)
        folder = folder / source.folder if (folder / source.folder).is_dir() else folder
        names = [_names(folder / source.meta, key) for key in source.names]
        sizes = [len(part) for part in names]
        train = [_examples(folder / file, source.labels, sizes) for file in source.train]
        parts = {
            "train": [np.concatenate(columns) for columns in zip(*train, strict=True)],
            "test": _examples(folder / source.test, source.labels, sizes),
        }
        sources = {"train": ", ".join(source.train), "test": source.test}
    available = {role: Split(in_unit_range(columns[0]), *columns[1:]) for role, columns in parts.items()}
    full_name = task_name(name, {"metric": metric, "views": views}, {"metric": "accuracy", "views": 1})
    return image_task(full_name, available, sources, names[0], metric, RESIDUAL, names[1] if len(names) > 1 else (), views)


def _names(path: Path, key: str) -> list[str]:
    names = _content(path).get(key)
    if not isinstance(names, list) or len(names) < 2:
        raise InputError(f"{path}: no list {key!r} of names; download the file again")
    return [name.decode("ascii", "replace") if isinstance(name, bytes) else str(name) for name in names]


def _examples(path: Path, keys: Sequence[str], sizes: Sequence[int]) -> list[np.ndarray]:
    """Return images, uint8 ``[N, 3, 32, 32]``, and the labels of each key, ``[N]``."""
    content = _content(path)
    data = content.get("data")
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.ndim != 2 or data.shape[1] != CHANNELS * SIDE**2 or not len(data):
        raise InputError(f"{path}: no images of {CHANNELS * SIDE**2} bytes under 'data'; download the file again")
    columns = [data.reshape(-1, CHANNELS, SIDE, SIDE)]
    for key, size in zip(keys, sizes, strict=True):
        labels = content.get(key)
        if not isinstance(labels, list) or len(labels) != len(data) or not all(isinstance(label, int) for label in labels):
            raise InputError(f"{path}: {key!r} is not a list of {len(data)} numbers; download the file again")
        if bad := [row for row, label in enumerate(labels) if not 0 <= label < size]:
            raise InputError(f"{path}: {key} {labels[bad[0]]} of image {bad[0]}, expected 0..{size - 1}; download the file again")
        columns.append(np.array(labels, dtype=np.int64))
    return columns


def _content(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise InputError(f"{path}: no such file; the folder of the task must hold the files of the published python version")
    require_file(path)
    content = read_pickle(path)
    if not isinstance(content, dict):
        raise InputError(f"{path}: a pickle of {type(content).__name__}, expected a dict; download the file again")
    return {key.decode("ascii", "replace") if isinstance(key, bytes) else str(key): value for key, value in content.items()}
