"""Split a build into shards, and run teachers on one. In: a task and a pool. Out: the outputs of a shard, batch by batch.

The examples of a batch decide the last bits of its outputs. So batches are cut here alone, and a bank does not depend on where its shards
run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor
from torch.nn.functional import pad

from kd_env.bank.finished_shards import FinishedShards
from kd_env.errors import InputError
from kd_env.knowledge.knowledge import EXTRA_OUTPUTS, TRAIN_ONLY
from kd_env.models.stages import output_of
from kd_env.plugins import faults_in
from kd_env.tasks import Split, Task
from kd_env.tasks.task import SPLITS
from kd_env.teachers import NetworkTeacher, Pool, Teacher
from kd_env.teachers.checkpoint import CheckpointTeacher
from kd_env.teachers.heads import group_by_network
from kd_env.types import ModelOutput

BATCH, SHARD = 256, 4096
"""Examples of one forward pass, and of a shard, in which texts are sorted by length."""

Shapes = dict[str, tuple[int, ...]]
"""Per example, the shape of each output of a teacher."""


@dataclass(frozen=True)
class Shard:
    """A part of a split, and the teachers that run on it together because they share a network.

    Attributes:
        split: name of the split.
        start: first example.
        stop: example after the last one.
        teachers: indices of the teachers.
        first_batch: number of the first batch to run; those before it are on disk.
    """

    split: str
    start: int
    stop: int
    teachers: tuple[int, ...]
    first_batch: int = 0

    @property
    def name(self) -> str:
        """Name in the list of finished shards."""
        return _name(self.split, self.teachers, self.start)

    @property
    def names(self) -> list[str]:
        """Names of the shards of each of its teachers alone."""
        return [_name(self.split, [teacher], self.start) for teacher in self.teachers]


class ShardBatch(NamedTuple):
    """Outputs of one teacher for one batch of a shard."""

    number: int  # in the shard, over all of its teachers
    teacher: int
    rows: np.ndarray  # in the split, [B]
    done: int  # examples of the shard that this teacher has run on so far
    values: dict[str, np.ndarray]  # output -> [B, ...]


class ShardLostError(InputError):
    """A shard could not be run for a reason that has nothing to do with its teachers. Finished shards are kept."""


@dataclass(frozen=True)
class ShardRunner:
    """Runs the teachers of a pool on a shard. It can be pickled if the teachers can.

    Attributes:
        task: the task.
        pool: the teachers.
        shapes: shapes of the outputs to keep, per teacher.
        half: convert to float16.
    """

    task: Task
    pool: Pool
    shapes: Sequence[Shapes]
    half: bool

    def kept(self, split: str, teacher: int) -> Shapes:
        """Return the shapes of the outputs of a teacher that are kept for a split; some are kept for train alone."""
        return {output: shape for output, shape in self.shapes[teacher].items() if output_of(output) not in TRAIN_ONLY or split == "train"}

    def shards(self, finished: FinishedShards) -> list[Shard]:
        """Return the shards that are not finished."""
        shards = []
        for split, group in product(SPLITS[:3], group_by_network(self.pool.teachers)):
            size = len(self._split(split))
            for start in range(0, size, SHARD):
                waiting = [k for k in group if _name(split, [k], start) not in finished]
                for together in [[k] for k in waiting] if self._sorts_by_length(split, group) else [waiting] * bool(waiting):
                    first = finished.batches(_name(split, together, start))
                    shards.append(Shard(split, start, min(start + SHARD, size), tuple(together), first))
        return shards

    def __call__(self, shard: Shard) -> Iterator[ShardBatch]:
        """Run the batches of a shard.

        Raises:
            InputError: an output has the wrong shape or is not finite.
        """
        for number, k, positions, done, output in self._batches(shard):
            rows = shard.start + positions
            teacher, kept = self.pool.teachers[k], self.kept(shard.split, k)
            values = {name: tensor.numpy() for name, tensor in _checked(teacher, output, kept, shard.split, rows, self.half)}
            yield ShardBatch(number, k, rows, done, values)

    def _batches(self, shard: Shard) -> Iterator[tuple[int, int, np.ndarray, int, ModelOutput]]:
        """Yield for each batch its number, its teacher, its positions in the shard, the number of examples so far, and the outputs."""
        inputs, first = self._split(shard.split).inputs[shard.start : shard.stop], shard.first_batch
        k, teacher = shard.teachers[0], self.pool.teachers[shard.teachers[0]]
        if isinstance(teacher, CheckpointTeacher) and self._sorts_by_length(shard.split, shard.teachers):
            batches = teacher.forward_in_batches(inputs, self._extra_outputs(shard.split, k), first)
            for number, (positions, done, output) in enumerate(batches, start=first):
                yield number, k, positions, done, output
            return
        for number, (start, k) in enumerate(product(range(0, len(inputs), BATCH), shard.teachers)):
            if number >= first:
                positions = np.arange(start, min(start + BATCH, len(inputs)))
                output = outputs_of(self.pool.teachers[k], inputs[positions[0] : positions[-1] + 1], self._extra_outputs(shard.split, k))
                yield number, k, positions, int(positions[-1]) + 1, output

    def _sorts_by_length(self, split: str, group: Sequence[int]) -> bool:
        return isinstance(self.pool.teachers[group[0]], CheckpointTeacher) and "attention" not in self.kept(split, group[0])

    def _extra_outputs(self, split: str, teacher: int) -> frozenset[str]:
        return frozenset(output for output in self.kept(split, teacher) if output_of(output) in EXTRA_OUTPUTS)

    def _split(self, name: str) -> Split:
        split: Split = getattr(self.task, name)
        return split


MapShards = Callable[[ShardRunner, Sequence[Shard]], Iterable[tuple[Shard, Iterable[ShardBatch]]]]
"""Runs a runner on shards, here or elsewhere; returns each shard with its batches, in any order of the shards.

It raises :class:`ShardLostError` where a shard cannot be run.
"""


def one_after_another(run: ShardRunner, shards: Sequence[Shard]) -> Iterator[tuple[Shard, Iterator[ShardBatch]]]:
    """Run shards in this process, in order."""
    for shard in shards:
        yield shard, run(shard)


def outputs_of(teacher: Teacher, inputs: np.ndarray, extra_outputs: frozenset[str]) -> ModelOutput:
    """Return a teacher's outputs for some inputs, with those that ``extra_outputs`` names where it has them.

    Raises:
        InputError: a user-defined teacher fails, or returns no :class:`~kd_env.types.ModelOutput` of tensors.
    """
    if isinstance(teacher, NetworkTeacher | CheckpointTeacher):
        return teacher.forward(inputs, extra_outputs)
    with faults_in(f"teacher {teacher.name!r}", type(teacher)):
        output: object = teacher(inputs)
    if not isinstance(output, ModelOutput) or not isinstance(output.logits, Tensor) or not isinstance(output.features, Tensor):
        raise InputError(f"teacher {teacher.name!r} returned no kd_env.types.ModelOutput with logits and features as tensors; return one")
    return output.map(Tensor.detach)


def _name(split: str, teachers: Sequence[int], start: int) -> str:
    return f"{split} {'+'.join(map(str, teachers))} {start}"


def _checked(
    teacher: Teacher, output: ModelOutput, shapes: Shapes, split: str, rows: np.ndarray, half: bool
) -> Iterator[tuple[str, Tensor]]:
    """Yield the outputs to keep, by name, after a check of shape and values."""
    for what, shape in shapes.items():
        values: Any = output.named(what)
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
                f"teacher {teacher.name!r}: {what} of {split} example {example} are not finite{precision}; fix or leave out that teacher"
            )
        yield what, values
