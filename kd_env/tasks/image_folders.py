"""``images:PATH``: your own images, read from files ``SPLIT/CLASS/IMAGE`` that Pillow can read, of one size or scaled to ``size``.

``train`` must be there; ``reward``, ``validation``, ``dev`` and ``test`` may be. Missing splits are carved, see :mod:`kd_env.tasks.splits`.
Images are grey if all of train are, else in colour; values are in [0, 1]. :mod:`kd_env.tasks.pictures` reads a file.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from kd_env.errors import InputError
from kd_env.tasks.folders import ROLES, require_folder, require_targets
from kd_env.tasks.memory import require_memory
from kd_env.tasks.metrics import metric_notes
from kd_env.tasks.pictures import Picture, is_grey, read_picture
from kd_env.tasks.splits import four_splits, small_validation_notes
from kd_env.tasks.task import Defaults, Split, Task, task_name


def load(path: str, metric: str = "accuracy", size: object = None) -> Task:
    """Load the folder.

    Args:
        path: the folder.
        metric: ``accuracy``, ``f1``, ``f1(class=NAME)``, ``f1_macro`` or ``mcc``.
        size: width and height to scale all images to, as ``32`` or ``32x24``. Default: the size that all of them have.

    Raises:
        InputError: train has fewer than two classes, an image cannot be read or has another size, an image or a class is a symbolic link
            to nothing, or the images would need more memory than the machine has; it names the file.
    """
    folder = require_folder(path, f"images:{path}")
    shape = _shape(path, size)
    require_targets(folder / role for role in ROLES)
    files = {role: _files(folder / role) for role in ROLES if (folder / role).is_dir()}
    unused = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and entry.name not in files)
    unread = [str(path.relative_to(folder)) for role in files for path in _unread(folder / role)]
    classes = sorted({file.parent.name for file in files.get("train", ())})
    if len(classes) < 2:
        raise InputError(f"{folder}: {len(classes)} classes in train; expected images as train/CLASS/NAME.png, of at least two classes")
    name = task_name(f"images:{path}", {"metric": metric, "size": size}, {"metric": "accuracy", "size": None})
    _require_memory(folder, files, shape)
    first_file = files["train"][0]
    first = read_picture(first_file, shape)
    pictures = {role: [_fitting(file, shape, classes, first_file, first) for file in paths] for role, paths in files.items()}
    colour = any(picture.pixels.ndim == 3 for picture in pictures["train"])
    available = {role: _split(paths, pictures[role], classes, colour) for role, paths in files.items()}
    splits, notes = four_splits(name, available, {role: f"{role}/" for role in files}, classes)
    return Task(
        name=name,
        kind="image",
        train=splits["train"],
        reward=splits["reward"],
        validation=splits["validation"],
        test=splits["test"],
        class_names=tuple(classes),
        metric=metric,
        notes=(
            *([f"not read: {', '.join(unused)} (folders are {', '.join(ROLES)})"] if unused else ()),
            *([f"not read: {', '.join(unread[:5])}{' ...' * (len(unread) > 5)} (images are SPLIT/CLASS/NAME)"] if unread else ()),
            *_picture_notes(pictures, colour),
            *notes,
            *metric_notes(metric, classes, splits["train"].labels),
            *small_validation_notes(len(splits["validation"])),
        ),
        defaults=Defaults(pool="image/sizes", student="mlp(width=24)", updates=1000, kd_weight=1.0, temperature=2.0),
    )


def _shape(path: str, size: object) -> tuple[int, int] | None:
    """Return width and height of ``size``."""
    if size is None:
        return None
    match = re.fullmatch(r"(\d{1,5})(?:\s*x\s*(\d{1,5}))?", str(size).strip().lower())
    width, height = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if width * height == 0:
        raise InputError(f"task images:{path}(size={size}): expected width and height in pixels, as size=32 or size=32x24")
    return width, height


def _files(folder: Path) -> list[Path]:
    """Return the image files of a split; hidden files and folders are skipped.

    Raises:
        InputError: there are none, or a class or an image is a symbolic link to nothing.
    """
    entries = [path for path in (*folder.iterdir(), *folder.glob("*/*")) if not path.name.startswith(".")]
    require_targets(sorted(entries))
    files = sorted(path for path in entries if path.parent != folder and not path.parent.name.startswith(".") and path.is_file())
    if not files:
        raise InputError(f"{folder}: no images; expected {folder.name}/CLASS/NAME.png, or no such folder")
    return files


def _unread(folder: Path) -> list[Path]:
    """Return what a split holds besides images of classes: files without a class, folders in a class, and classes without an image."""
    unread = []
    for entry in sorted(path for path in folder.iterdir() if not path.name.startswith(".")):
        inner = [path for path in sorted(entry.iterdir()) if not path.name.startswith(".")] if entry.is_dir() else []
        folders = [path for path in inner if path.is_dir()]
        unread += folders or ([] if inner else [entry])
    return unread


def _require_memory(folder: Path, files: dict[str, list[Path]], shape: tuple[int, int] | None) -> None:
    """Check the memory of all images, which have the size of the first one of train, or are refused where they are read."""
    first = read_picture(files["train"][0]).pixels
    height, width = first.shape[:2] if shape is None else shape[::-1]
    number, advice = sum(map(len, files.values())), "scale them to a smaller size, as with images:PATH(size=32)"
    try:
        require_memory(str(folder), number, 3, height, width, advice)
    except InputError:  # only now are the headers of all files worth their time
        if not all(map(is_grey, files["train"])):
            raise
        require_memory(str(folder), number, 1, height, width, advice)


def _fitting(file: Path, shape: tuple[int, int] | None, classes: list[str], first_file: Path, first: Picture) -> Picture:
    """Read an image, and check that it has the size of the first one and a class of train."""
    picture = read_picture(file, shape)
    if picture.pixels.shape[:2] != first.pixels.shape[:2]:
        size, expected = (f"{shape[1]} x {shape[0]}" for shape in (picture.pixels.shape, first.pixels.shape))
        raise InputError(
            f"{file}: {size} pixels, expected {expected} as {first_file}; scale all images to one size, as with images:PATH(size=32)"
        )
    if file.parent.name not in classes:
        raise InputError(f"{file}: class {file.parent.name!r} is not among those of train ({', '.join(classes)[:200]})")
    return picture


def _split(files: list[Path], pictures: list[Picture], classes: list[str], colour: bool) -> Split:
    height, width = pictures[0].pixels.shape[:2]
    inputs = np.empty((len(pictures), 3 if colour else 1, height, width), dtype=np.float32)
    for row, picture in enumerate(pictures):
        inputs[row] = picture.channels(colour)
    number = {name: position for position, name in enumerate(classes)}
    return Split(inputs, np.array([number[file.parent.name] for file in files], dtype=np.int64))


def _picture_notes(pictures: dict[str, list[Picture]], colour: bool) -> list[str]:
    """Return a note on each thing that was done to some of the images."""
    every: Sequence[Picture] = [picture for part in pictures.values() for picture in part]
    grey = sum(picture.pixels.ndim == 2 for picture in every)
    counts = {
        "of 16 bits: their values are divided by 65,535": sum(picture.deep for picture in every),
        "turned or mirrored as their EXIF orientation says": sum(picture.turned for picture in every),
        "scaled to another size": sum(picture.scaled for picture in every),
        "of several frames: only the first frame is read": sum(picture.frames for picture in every),
        "of another colour space, as CMYK: they are converted to RGB without a colour profile": sum(picture.converted for picture in every),
        "with an alpha channel that is opaque throughout, which is dropped": sum(picture.opaque for picture in every),
    }
    notes = [f"{count:,} of {len(every):,} images are {what}" for what, count in counts.items() if count]
    if 0 < grey < len(every):
        now = "read in three equal channels" if colour else "the only ones in train, so colour images of other splits are read in grey"
        notes.append(f"{grey:,} of {len(every):,} images are grey, {now}")
    return notes
