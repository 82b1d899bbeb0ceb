"""``images:PATH``: your own images, read from files ``SPLIT/CLASS/IMAGE`` that Pillow can read, all of one size.

``train`` must be there; ``reward``, ``validation``, ``dev`` and ``test`` may be. Missing splits are carved, see :mod:`kd_env.tasks.splits`.
Images are grey if all of train are, else in colour; values are in [0, 1].
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from kd_env.errors import InputError
from kd_env.tasks.folders import ROLES, require_folder
from kd_env.tasks.splits import four_splits
from kd_env.tasks.task import Defaults, Split, Task, task_name


def load(path: str, metric: str = "accuracy") -> Task:
    """Load the folder.

    Args:
        path: the folder.
        metric: ``accuracy``, ``f1`` or ``mcc``.

    Raises:
        InputError: train has fewer than two classes, or an image cannot be read or has another size; it names the file.
    """
    folder = require_folder(path, f"images:{path}")
    files = {role: _files(folder / role) for role in ROLES if (folder / role).is_dir()}
    unused = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and entry.name not in files)
    classes = sorted({file.parent.name for file in files.get("train", ())})
    if len(classes) < 2:
        raise InputError(f"{folder}: {len(classes)} classes in train; expected images as train/CLASS/NAME.png, of at least two classes")
    name = task_name(f"images:{path}", {"metric": metric}, {"metric": "accuracy"})
    images = {role: [_image(file) for file in paths] for role, paths in files.items()}
    mode = "L" if all(image.mode in ("1", "L") for image in images["train"]) else "RGB"
    available = {}
    for role, paths in files.items():
        for file, image in zip(paths, images[role], strict=True):
            _require_fit(file, image, classes, files["train"][0], images["train"][0])
        available[role] = _split(paths, images[role], classes, mode)
    splits, notes = four_splits(name, available, {role: f"{role}/" for role in files})
    return Task(
        name=name,
        kind="image",
        train=splits["train"],
        reward=splits["reward"],
        validation=splits["validation"],
        test=splits["test"],
        class_names=tuple(classes),
        metric=metric,
        notes=(*([f"not read: {', '.join(unused)} (folders are {', '.join(ROLES)})"] if unused else ()), *notes),
        defaults=Defaults(pool="image/sizes", student="mlp(width=24)", updates=1000, kd_weight=1.0, temperature=2.0),
    )


def _files(folder: Path) -> list[Path]:
    """Return the image files of a split; hidden files are skipped."""
    files = sorted(path for path in folder.glob("*/*") if path.is_file() and not path.name.startswith("."))
    if not files:
        raise InputError(f"{folder}: no images; expected {folder.name}/CLASS/NAME.png, or no such folder")
    return files


def _image(file: Path) -> Any:
    from PIL import Image

    try:
        with Image.open(file) as image:
            image.load()
            return image.copy()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:  # what Pillow raises for files that are no images
        raise InputError(f"{file} cannot be read as an image ({type(error).__name__}: {error}); replace or delete it") from None


def _require_fit(file: Path, image: Any, classes: list[str], first_file: Path, first_image: Any) -> None:
    if image.size != first_image.size:
        size, expected = (f"{width} x {height}" for width, height in (image.size, first_image.size))
        raise InputError(f"{file}: {size} pixels, expected {expected} as {first_file}; scale all images to one size")
    if file.parent.name not in classes:
        raise InputError(f"{file}: class {file.parent.name!r} is not among those of train ({', '.join(classes)[:200]})")


def _split(files: list[Path], images: list[Any], classes: list[str], mode: str) -> Split:
    pixels = np.stack([np.asarray(image.convert(mode), dtype=np.float32) / 255 for image in images])  # [N, H, W] or [N, H, W, 3]
    channels_first = pixels[:, None] if mode == "L" else pixels.transpose(0, 3, 1, 2)
    return Split(np.ascontiguousarray(channels_first), np.array([classes.index(file.parent.name) for file in files], dtype=np.int64))
