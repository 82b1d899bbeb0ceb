"""Build a bank: ask every teacher about every example, once. In: a task and a pool. Out: a folder, whole or not at all."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.format import open_memmap
from torch import Tensor
from torch.nn.functional import pad

from kd_env.bank.finished_shards import FinishedShards
from kd_env.errors import InputError
from kd_env.knowledge.knowledge import EXTRA_OUTPUTS
from kd_env.models.encode import encode
from kd_env.randomness import one_thread
from kd_env.tasks import Split, Task
from kd_env.tasks.task import SPLITS
from kd_env.teachers import Pool, Teacher
from kd_env.teachers.checkpoint import CheckpointTeacher
from kd_env.teachers.heads import sharing
from kd_env.types import ModelOutput

FORMAT = 1
BATCH, SHARD = 256, 4096
_BLOCK, _BLOCKS = 1 << 16, 64

Progress = Callable[[str, int, int], None]
"""Called with a teacher's name, the examples done and all of them."""


def fingerprint(task: Task, pool: Pool, keep: frozenset[str] = frozenset(), half: bool = False) -> str:
    """Hash of all that decides a bank's content: teachers' weights, task content, settings."""
    settings = ":".join([str(FORMAT), *sorted(keep), *(["half"] if half else [])])
    parts = [settings, task.fingerprint, *(f"{teacher.name}={teacher.fingerprint()}" for teacher in pool.teachers)]
    return hashlib.sha256("|".join(parts).encode()).hexdigest()


def build(place: Path, task: Task, pool: Pool, keep: frozenset[str], half: bool, progress: Progress | None) -> None:
    """Write the bank beside ``place`` and move it in; whatever was there goes. The caller holds the lock.

    A build that was killed carries on with the same task, teachers and settings where it was, in shards of 4,096 examples.

    Raises:
        InputError: a teacher's outputs have the wrong shape or are not finite; nothing is left of the build then.
    """
    identity = fingerprint(task, pool, keep, half)
    partial = place.with_name(f".{place.name}.partial")
    done = FinishedShards(partial, identity)
    try:
        shapes = [_shapes(teacher, task, keep) for teacher in pool.teachers]
        with one_thread():
            for name in SPLITS[:3]:
                _write_split(partial, name, getattr(task, name), pool, shapes, half, done, progress)
    except Exception:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    meta = {
        "format": FORMAT,
        "fingerprint": identity,
        "task": task.fingerprint,
        "teachers": pool.names,
        "widths": [shape["features"][0] for shape in shapes],
        **{part: part in keep for part in EXTRA_OUTPUTS},
        "half": half,
        "files": {path.name: describe(path) for path in sorted(partial.glob("*.npy"))},
    }
    (partial / "bank.json").write_text(json.dumps(meta, indent=1))
    done.path.unlink()
    shutil.rmtree(place, ignore_errors=True)
    partial.replace(place)


def describe(path: Path) -> dict[str, Any]:
    """Size and checksum of up to 64 blocks of 64 KiB spread evenly: all of a small file, a fair sample of a large one, in milliseconds."""
    digest = hashlib.sha256()
    size = path.stat().st_size
    with path.open("rb") as file:
        for start in np.unique(np.linspace(0, max(size - _BLOCK, 0), min(_BLOCKS, -(-size // _BLOCK)), dtype=np.int64)):
            file.seek(int(start))
            digest.update(file.read(_BLOCK))
    return {"bytes": size, "checksum": digest.hexdigest()}


def _shapes(teacher: Teacher, task: Task, keep: frozenset[str]) -> dict[str, tuple[int, ...]]:
    """Per example, the shape of each thing the teacher says; what later batches are held to."""
    said = teacher(task.train.inputs[:1])
    shapes: dict[str, tuple[int, ...]] = {"logits": (task.num_classes,), "features": tuple(said.features.shape[1:])}
    if len(shapes["features"]) != 1:
        raise InputError(f"teacher {teacher.name!r} gave features of shape {tuple(said.features.shape)} for one example; expected [B, D]")
    for part in sorted(keep):
        values: Tensor | None = getattr(said, part)
        if values is None or values.ndim != EXTRA_OUTPUTS[part]:
            raise InputError(f"teacher {teacher.name!r} shows no {part}; leave out the knowledge types that compare it")
        shapes[part] = tuple(values.shape[1:])
    if "attention" in shapes and task.kind == "text":
        if isinstance(teacher, CheckpointTeacher):
            tokens = teacher.tokens(task.train.inputs)
        else:
            tokens = encode(task, task.train.inputs)["input_ids"].shape[1]
        shapes["attention"] = (2, tokens, tokens)
    return shapes


def _write_split(
    partial: Path,
    name: str,
    split: Split,
    pool: Pool,
    shapes: list[dict[str, tuple[int, ...]]],
    half: bool,
    done: FinishedShards,
    progress: Progress | None,
) -> None:
    kind = np.float16 if half else np.float32

    def create(what: str, *shape: int) -> Any:
        path = partial / f"{name}.{what}.npy"
        return open_memmap(path, "r+") if path.exists() else open_memmap(path, "w+", kind, (len(split), *shape))

    ends = np.cumsum([0, *(shape["features"][0] for shape in shapes)])
    arrays = {"logits": create("logits", len(pool.teachers), *shapes[0]["logits"]), "features": create("features", int(ends[-1]))}
    kept = [{part: shape for part, shape in one.items() if part != "attention" or name == "train"} for one in shapes]
    for group in sharing(pool.teachers):  # of which one forward pass serves all, where they are asked batch by batch
        extra = {k: {part: create(f"{part}.{k}", *kept[k][part]) for part in EXTRA_OUTPUTS if part in kept[k]} for k in group}
        whole = isinstance(pool.teachers[group[0]], CheckpointTeacher) and "attention" not in extra[group[0]]  # it sorts them by length
        for shard in range(0, len(split), SHARD):
            end = min(shard + SHARD, len(split))
            waiting = [k for k in group if f"{name} {k} {shard}" not in done]
            for start, k in product(range(shard, end, SHARD if whole else BATCH), waiting):
                teacher, rows = pool.teachers[k], slice(start, min(start + (SHARD if whole else BATCH), end))
                said = _ask(teacher, split.inputs[rows], frozenset(extra[k]))
                for what, values in _checked(teacher, said, kept[k], f"{name} example", start, rows.stop - start, half):
                    if what == "logits":
                        arrays[what][rows, k] = values.numpy()
                    elif what == "features":
                        arrays[what][rows, ends[k] : ends[k + 1]] = values.numpy()
                    else:
                        extra[k][what][rows] = values.numpy()
                if progress:
                    progress(f"{teacher.name}, {name}", rows.stop, len(split))
            for array in (*arrays.values(), *(one for k in group for one in extra[k].values())):
                array.flush()
            for k in waiting:
                done.add(f"{name} {k} {shard}")


def _ask(teacher: Teacher, inputs: np.ndarray, extra: frozenset[str]) -> ModelOutput:
    return teacher.say(inputs, extra) if isinstance(teacher, CheckpointTeacher) else teacher(inputs)


def _checked(
    teacher: Teacher, said: ModelOutput, shapes: dict[str, tuple[int, ...]], place: str, start: int, count: int, half: bool
) -> Iterator[tuple[str, Tensor]]:
    for what, shape in shapes.items():
        values = getattr(said, what)
        if what == "attention" and values is not None:  # a batch is padded to its own longest text, the bank to the split's
            missing = shape[-1] - values.shape[-1]
            values = pad(values, (0, missing, 0, missing))
        if values is None or tuple(values.shape) != (count, *shape):
            given = None if values is None else tuple(values.shape)
            raise InputError(
                f"teacher {teacher.name!r} gave {what} of shape {given}, expected {(count, *shape)}; was it made for this task?"
            )
        if half:
            values = values.half()  # what is too large for it becomes infinite
        if not values.isfinite().all():
            bad = start + int((~values.isfinite()).flatten(1).any(1).nonzero()[0])
            precision = " in half precision" if half else ""
            raise InputError(f"teacher {teacher.name!r}: {what} of {place} {bad} are not finite{precision}; mend or leave out that teacher")
        yield what, values
