"""Build a bank: run every teacher on every example of train, reward and validation, once."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.format import open_memmap
from torch import Tensor

from kd_env.bank.blocks import is_checksum_file, write_checksums
from kd_env.bank.fingerprint import FORMAT, describe, fingerprint, meta_checksum
from kd_env.bank.finished_shards import FinishedShards
from kd_env.bank.shards import MapShards, Shapes, Shard, ShardBatch, ShardLostError, ShardRunner, one_after_another, outputs_of
from kd_env.errors import InputError
from kd_env.knowledge.knowledge import EXTRA_OUTPUTS
from kd_env.models.encode import encode
from kd_env.models.stages import ALL, LAST, STEM, numbered, output_of, request
from kd_env.paths import naming, partial_folder
from kd_env.randomness import reproducible
from kd_env.tasks import Task
from kd_env.tasks.task import SPLITS
from kd_env.teachers import Pool, Teacher
from kd_env.teachers.checkpoint import CheckpointTeacher
from kd_env.types import ModelOutput

SECONDS = 60.0
"""Seconds between two saves within a shard. A build that is continued repeats at most this much work."""

ProgressCallback = Callable[[str, int, int], None]
"""Called with the teacher and the split, the examples done and all examples."""


def build(
    place: Path,
    task: Task,
    pool: Pool,
    keep: frozenset[str],
    half: bool,
    progress: ProgressCallback | None,
    map_shards: MapShards = one_after_another,
) -> None:
    """Write the bank beside ``place`` and move it there when it is complete; what was at ``place`` is deleted. The caller holds the lock.

    After a kill, a build with the same task, teachers and settings continues from the last save, at most about a minute earlier.

    Args:
        map_shards: runs the shards; this process writes what it returns.

    Raises:
        InputError: a teacher's outputs have the wrong shape or are not finite; the partial build is deleted then.
        ShardLostError: a shard could not be run; the partial build is kept.
    """
    identity = fingerprint(task, pool, keep, half)
    partial = partial_folder(place)
    finished = FinishedShards(partial, identity)
    try:
        shapes = [_shapes(teacher, task, keep) for teacher in pool.teachers]
        if pool.drift is not None and any(other != shapes[0] for other in shapes):
            raise InputError(f"pool {pool.name!r}: its teachers change roles during a run, and the shapes of their outputs differ")
        with reproducible():
            _write_arrays(partial, ShardRunner(task, pool, shapes, half), finished, progress, map_shards)
    except (OSError, ShardLostError):  # such as a full disk: finished examples stay, and the next build continues
        raise
    except Exception:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    for path in sorted(partial.glob("*.npy")):
        if not is_checksum_file(path):  # a build that stopped in this loop may have left some
            with naming(path):
                write_checksums(path)
    meta: dict[str, Any] = {
        "format": FORMAT,
        "fingerprint": identity,
        "task": task.fingerprint,
        "teachers": pool.names,
        "widths": [shape["features"][0] for shape in shapes],
        **{output: output in keep for output in EXTRA_OUTPUTS},
        **_stages_in_meta(keep, shapes),
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
    output = outputs_of(teacher, task.train.inputs[:1], keep)
    shapes: Shapes = {"logits": (task.num_classes,), "features": tuple(output.features.shape[1:])}
    if len(shapes["features"]) != 1:
        raise InputError(f"teacher {teacher.name!r} gave features of shape {tuple(output.features.shape)} for one example; expected [B, D]")
    for name in sorted(name for asked in keep for name in _names(asked, output)):
        values: Tensor | None = output.named(name)
        if values is None or values.ndim != EXTRA_OUTPUTS[output_of(name)]:
            raise _missing(teacher, task, name)
        shapes[name] = tuple(values.shape[1:])
    if "attention" in shapes and task.kind == "text":
        if isinstance(teacher, CheckpointTeacher):
            tokens = teacher.num_tokens(task.train.inputs)
        else:
            tokens = encode(task, task.train.inputs)["input_ids"].shape[1]
        shapes["attention"] = (2, tokens, tokens)
    return shapes


def _names(asked: str, output: ModelOutput) -> list[str]:
    """Return the names of the outputs to keep for one name in ``keep``; ``maps.all`` stands for the numbered stages that a teacher has."""
    return [f"maps.{stage}" for stage in numbered(output.stages)] or [asked] if asked == request(ALL) else [asked]


def _missing(teacher: Teacher, task: Task, name: str) -> InputError:
    """Return the error for a teacher without an output."""
    output, _, stage = name.partition(".")
    known = outputs_of(teacher, task.train.inputs[:1], frozenset({"maps", request(ALL), request(STEM)})) if output == "maps" else None
    if known is None or not known.stages:
        compared = "compare stages" if stage else "compare it"
        what = f"feature map of stage {stage!r}" if stage else output
        return InputError(f"teacher {teacher.name!r} has no {what}; leave out the knowledge types that {compared}")
    stages = ", ".join([*known.stages, *([] if known.maps is None else [LAST])])
    if not stage:
        remedy = f"name one of its stages, as in map_hint(stage={list(known.stages)[-1]}); it has {stages}"
        return InputError(f"teacher {teacher.name!r} has no maps whose means are its features; {remedy}")
    return InputError(f"teacher {teacher.name!r} has no feature map of stage {stage!r}; it has {stages}; name one of these")


def _stages_in_meta(keep: frozenset[str], shapes: Sequence[Shapes]) -> dict[str, Any]:
    """Return what ``bank.json`` says about feature maps that are kept by stage: the stages asked for, and those of each teacher."""
    asked = sorted(name.partition(".")[2] for name in keep if "." in name)
    of_teachers = [[name.partition(".")[2] for name in shape if "." in name] for shape in shapes]
    return {"stages": asked, "teacher_stages": of_teachers} if asked else {}


def _write_arrays(
    folder: Path, run: ShardRunner, finished: FinishedShards, progress: ProgressCallback | None, map_shards: MapShards
) -> None:
    """Write the shards that are not finished."""
    teachers = run.pool.teachers
    arrays = {split: _Arrays(folder, split, run) for split in SPLITS[:3]}
    todo = run.shards(finished)
    done: Counter[tuple[str, int]] = Counter()  # examples in finished shards, by split and teacher
    for split, k in ((split, k) for split in arrays for k in range(len(teachers))):
        done[split, k] = arrays[split].num_examples - sum(s.stop - s.start for s in todo if s.split == split and k in s.teachers)
    for shard, batches in map_shards(run, todo):
        files = arrays[shard.split]
        saved = time.monotonic()
        for batch in batches:
            files.write(batch)
            if time.monotonic() - saved >= SECONDS:
                files.flush(shard)
                finished.add_batches(shard.name, batch.number + 1)
                saved = time.monotonic()
            if progress:
                k = batch.teacher
                progress(f"{teachers[k].name}, {shard.split}", done[shard.split, k] + batch.done, files.num_examples)
        files.flush(shard)
        for k, name in zip(shard.teachers, shard.names, strict=True):
            finished.add(name)
            done[shard.split, k] += shard.stop - shard.start


class _Arrays:
    """The memory-mapped arrays of a split, those of an earlier build where there are any."""

    def __init__(self, folder: Path, split: str, run: ShardRunner) -> None:
        self._folder, self._split, self._half = folder, split, run.half
        self.num_examples = len(getattr(run.task, split))
        self._ends = np.cumsum([0, *(shapes["features"][0] for shapes in run.shapes)])
        self._logits = self._open("logits", len(run.shapes), *run.shapes[0]["logits"])
        self._features = self._open("features", int(self._ends[-1]))
        self._extra = {
            (k, output): self._open(f"{output}.{k}", *shape)
            for k in range(len(run.shapes))
            for output, shape in run.kept(split, k).items()
            if output_of(output) in EXTRA_OUTPUTS
        }

    def write(self, batch: ShardBatch) -> None:
        """Write the outputs of a batch."""
        k = batch.teacher
        for output, values in batch.values.items():
            if output == "logits":
                self._logits[batch.rows, k] = values
            elif output == "features":
                self._features[batch.rows, self._ends[k] : self._ends[k + 1]] = values
            else:
                self._extra[k, output][batch.rows] = values

    def flush(self, shard: Shard) -> None:
        """Write what a shard has changed to the disk."""
        for array in (self._logits, self._features, *(array for (k, _), array in self._extra.items() if k in shard.teachers)):
            array.flush()

    def _open(self, output: str, *shape: int) -> Any:
        path = self._folder / f"{self._split}.{output}.npy"
        with naming(path):
            if path.exists():
                array = open_memmap(path, "r+")
            else:
                array = open_memmap(path, "w+", np.float16 if self._half else np.float32, (self.num_examples, *shape))
            _allocate(path)
        return array


def _allocate(path: Path) -> None:
    """Take the space of a file from the disk. A memory-mapped file has holes; on a full disk, writing to one would kill the process."""
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
