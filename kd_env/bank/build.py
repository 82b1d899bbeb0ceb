"""Build a bank: run every teacher on every example of train, reward and validation, once."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.format import open_memmap
from torch import Tensor
from torch.nn.functional import pad

from kd_env.bank.blocks import is_checksum_file, write_checksums
from kd_env.bank.fingerprint import FORMAT, describe, fingerprint, meta_checksum
from kd_env.bank.finished_shards import FinishedShards
from kd_env.errors import InputError
from kd_env.knowledge.knowledge import EXTRA_OUTPUTS
from kd_env.models.encode import encode
from kd_env.paths import naming
from kd_env.randomness import one_thread
from kd_env.tasks import Split, Task
from kd_env.tasks.task import SPLITS
from kd_env.teachers import Pool, Teacher
from kd_env.teachers.checkpoint import CheckpointTeacher
from kd_env.teachers.heads import group_by_network
from kd_env.types import ModelOutput

BATCH, SHARD = 256, 4096
"""Examples of one forward pass, and of a shard, in which texts are sorted by length."""
SECONDS = 60.0
"""A build that is stopped repeats no more work than this, or a shard where that is less."""

ProgressCallback = Callable[[str, int, int], None]
"""Called with the teacher and the split, the examples done and all examples."""

Shapes = dict[str, tuple[int, ...]]
"""Per example, the shape of each output of a teacher."""


class _Job(NamedTuple):
    """What is the same for all splits of a build."""

    folder: Path
    pool: Pool
    shapes: list[Shapes]  # of each teacher
    half: bool
    finished: FinishedShards
    progress: ProgressCallback | None


def build(place: Path, task: Task, pool: Pool, keep: frozenset[str], half: bool, progress: ProgressCallback | None) -> None:
    """Write the bank beside ``place`` and move it there when it is complete; what was at ``place`` is deleted. The caller holds the lock.

    After a kill, a build with the same task, teachers and settings continues from the last save, at most about a minute earlier.

    Raises:
        InputError: a teacher's outputs have the wrong shape or are not finite; the partial build is deleted then.
    """
    identity = fingerprint(task, pool, keep, half)
    partial = place.with_name(f".{place.name}.partial")
    finished = FinishedShards(partial, identity)
    try:
        shapes = [_shapes(teacher, task, keep) for teacher in pool.teachers]
        if pool.drift is not None and any(other != shapes[0] for other in shapes):
            raise InputError(f"pool {pool.name!r}: its teachers change roles during a run, and the shapes of their outputs differ")
        job = _Job(partial, pool, shapes, half, finished, progress)
        with one_thread():
            for name in SPLITS[:3]:
                _write_split(job, name, getattr(task, name))
    except OSError:  # such as a full disk: finished examples stay, and the next build continues
        raise
    except Exception:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    for path in sorted(partial.glob("*.npy")):
        if not is_checksum_file(path):  # of a build that was stopped here
            with naming(path):
                write_checksums(path)
    meta: dict[str, Any] = {
        "format": FORMAT,
        "fingerprint": identity,
        "task": task.fingerprint,
        "teachers": pool.names,
        "widths": [shape["features"][0] for shape in shapes],
        **{output: output in keep for output in EXTRA_OUTPUTS},
        "half": half,
        **({} if pool.drift is None else {"drift": asdict(pool.drift)}),
        "files": {path.name: describe(path) for path in sorted(partial.glob("*.npy"))},
    }
    with naming(partial / "bank.json"):
        (partial / "bank.json").write_text(json.dumps({**meta, "checksum": meta_checksum(meta)}, indent=1))
    finished.path.unlink()
    shutil.rmtree(place, ignore_errors=True)
    partial.replace(place)


def _shapes(teacher: Teacher, task: Task, keep: frozenset[str]) -> Shapes:
    """Return the shapes of the teacher's outputs, from its output for one example."""
    output = teacher(task.train.inputs[:1])
    shapes: Shapes = {"logits": (task.num_classes,), "features": tuple(output.features.shape[1:])}
    if len(shapes["features"]) != 1:
        raise InputError(f"teacher {teacher.name!r} gave features of shape {tuple(output.features.shape)} for one example; expected [B, D]")
    for name in sorted(keep):
        values: Tensor | None = getattr(output, name)
        if values is None or values.ndim != EXTRA_OUTPUTS[name]:
            raise InputError(f"teacher {teacher.name!r} has no {name}; leave out the knowledge types that compare it")
        shapes[name] = tuple(values.shape[1:])
    if "attention" in shapes and task.kind == "text":
        if isinstance(teacher, CheckpointTeacher):
            tokens = teacher.num_tokens(task.train.inputs)
        else:
            tokens = encode(task, task.train.inputs)["input_ids"].shape[1]
        shapes["attention"] = (2, tokens, tokens)
    return shapes


def _write_split(job: _Job, name: str, split: Split) -> None:
    teachers = job.pool.teachers
    ends = np.cumsum([0, *(shapes["features"][0] for shapes in job.shapes)])
    logits = _array(job, f"{name}.logits", len(split), len(teachers), *job.shapes[0]["logits"])
    features = _array(job, f"{name}.features", len(split), int(ends[-1]))
    kept = [{output: shape for output, shape in shapes.items() if output != "attention" or name == "train"} for shapes in job.shapes]
    for group in group_by_network(teachers):  # one forward pass serves a group, if its teachers are run batch by batch in turn
        extra = {
            k: {out: _array(job, f"{name}.{out}.{k}", len(split), *kept[k][out]) for out in EXTRA_OUTPUTS if out in kept[k]} for k in group
        }
        sorts_by_length = isinstance(teachers[group[0]], CheckpointTeacher) and "attention" not in extra[group[0]]
        arrays = (logits, features, *(array for k in group for array in extra[k].values()))
        for shard in range(0, len(split), SHARD):
            waiting = [k for k in group if f"{name} {k} {shard}" not in job.finished]
            part = slice(shard, min(shard + SHARD, len(split)))
            for together in [[k] for k in waiting] if sorts_by_length else [waiting] * bool(waiting):
                key = f"{name} {'+'.join(map(str, together))} {shard}"
                saved = time.monotonic()
                batches = _outputs(
                    teachers, together, split.inputs[part], {k: frozenset(extra[k]) for k in together}, job.finished.batches(key)
                )
                for number, k, positions, done, output in batches:
                    rows = shard + positions
                    for what, values in _checked(teachers[k], output, kept[k], f"{name} example", rows, job.half):
                        if what == "logits":
                            logits[rows, k] = values.numpy()
                        elif what == "features":
                            features[rows, ends[k] : ends[k + 1]] = values.numpy()
                        else:
                            extra[k][what][rows] = values.numpy()
                    if time.monotonic() - saved >= SECONDS:
                        _flush(arrays)
                        job.finished.add_batches(key, number + 1)
                        saved = time.monotonic()
                    if job.progress:
                        job.progress(f"{teachers[k].name}, {name}", shard + done, len(split))
                _flush(arrays)
                for k in together:
                    job.finished.add(f"{name} {k} {shard}")


def _outputs(
    teachers: Sequence[Teacher], together: Sequence[int], inputs: np.ndarray, extra: Mapping[int, frozenset[str]], first: int
) -> Iterator[tuple[int, int, np.ndarray, int, ModelOutput]]:
    """Run the teachers ``together`` on a shard; yield from batch ``first`` on.

    Yields:
        Number of the batch, teacher, positions of its examples in the shard, number of examples that are done, outputs.
    """
    teacher = teachers[together[0]]
    if len(together) == 1 and isinstance(teacher, CheckpointTeacher) and "attention" not in extra[together[0]]:  # sorts by length
        for number, (positions, done, output) in enumerate(teacher.forward_in_batches(inputs, extra[together[0]], first), start=first):
            yield number, together[0], positions, done, output
        return
    for number, (start, k) in enumerate(product(range(0, len(inputs), BATCH), together)):
        if number >= first:
            positions = np.arange(start, min(start + BATCH, len(inputs)))
            yield number, k, positions, int(positions[-1]) + 1, _run(teachers[k], inputs[positions[0] : positions[-1] + 1], extra[k])


def _flush(arrays: Sequence[Any]) -> None:
    for array in arrays:
        array.flush()


def _array(job: _Job, name: str, *shape: int) -> Any:
    """Return the memory-mapped array of that name, of an earlier run where there is one."""
    path = job.folder / f"{name}.npy"
    with naming(path):
        array = open_memmap(path, "r+") if path.exists() else open_memmap(path, "w+", np.float16 if job.half else np.float32, shape)
        _allocate(path)
    return array


def _allocate(path: Path) -> None:
    """Take the space of a file from the disk. A memory-mapped file has holes; on a full disk, writing to one would kill the process."""
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)


def _run(teacher: Teacher, inputs: np.ndarray, extra_outputs: frozenset[str]) -> ModelOutput:
    return teacher.forward(inputs, extra_outputs) if isinstance(teacher, CheckpointTeacher) else teacher(inputs)


def _checked(
    teacher: Teacher, output: ModelOutput, shapes: Shapes, place: str, rows: np.ndarray, half: bool
) -> Iterator[tuple[str, Tensor]]:
    """Yield the outputs to keep, by name, after a check of shape and values; ``place`` is for messages."""
    for what, shape in shapes.items():
        values = getattr(output, what)
        if what == "attention" and values is not None:  # a batch is padded to its own longest text, the bank to the split's
            missing = shape[-1] - values.shape[-1]
            values = pad(values, (0, missing, 0, missing))
        expected = (len(rows), *shape)
        if values is None or tuple(values.shape) != expected:
            actual = None if values is None else tuple(values.shape)
            raise InputError(f"teacher {teacher.name!r} gave {what} of shape {actual}, expected {expected}; was it made for this task?")
        if half:
            values = values.half()  # what is too large for it becomes infinite
        if not values.isfinite().all():
            example = int(rows[int((~values.isfinite()).flatten(1).any(1).nonzero()[0])])
            precision = " in half precision" if half else ""
            raise InputError(
                f"teacher {teacher.name!r}: {what} of {place} {example} are not finite{precision}; fix or leave out that teacher"
            )
        yield what, values
