"""Replace blocks of the student by the teacher's in training: Interactive Knowledge Distillation (Fu et al. 2020, arXiv 2007.01476).

In: the setting ``block_swap``, a student and a live teacher. Out: a context in which a forward pass runs a mixture of both networks. Each
block is replaced with the probability of the schedule, drawn for each update from the student's seed. Only the pass that the student learns
from is mixed; rewards, credit, validation and the finished student are those of the student alone.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

from kd_env.distillation.data import EncodedTask
from kd_env.distillation.settings import DistillationSettings
from kd_env.distillation.swap_schedule import parse_schedule
from kd_env.errors import InputError
from kd_env.models.encode import take
from kd_env.models.residual_blocks import BlockIndex, matching_blocks, swapped
from kd_env.models.stages import output_of
from kd_env.randomness import stream
from kd_env.student.protocol import Students


class BlockSwap:
    """The teacher's blocks for each block of a student.

    Attributes:
        blocks: the teacher's blocks by the index of the student's; empty if the setting swaps none.
    """

    def __init__(self, data: EncodedTask, settings: DistillationSettings, student: Students, extra_outputs: frozenset[str]) -> None:
        """Copy the teacher's blocks.

        Raises:
            InputError: there is no such teacher, the networks do not match, or a knowledge type compares what the mixture changes.
        """
        self.blocks = {}
        if not settings.block_swap:
            return
        self.schedule = parse_schedule(settings.block_swap)
        prefix = f"block_swap={settings.block_swap!r}"
        if compared := sorted({output_of(name) for name in extra_outputs} & {"layers", "attention", "maps"}):
            raise InputError(
                f"{prefix}: knowledge={settings.knowledge!r} compares {' and '.join(compared)}, which a swap mixes; use another"
            )
        if data.live is None:
            raise InputError(f"{prefix}: the data have no teachers; give EncodedTask.of the argument live=LiveTeachers.of(pool)")
        teachers = data.live.teachers
        if self.schedule.teacher >= len(teachers):
            raise InputError(f"{prefix}: teacher={self.schedule.teacher}, and the pool has {len(teachers)}; count from 0")
        teacher = teachers[self.schedule.teacher]
        example = student.cast(take(data.inputs["train"], slice(0, 1), student.device))
        self.blocks = matching_blocks(student.network, teacher.network, example, (settings.student, teacher.name))

    def mixed(self, student: Students, seed: int, update: int, progress: float) -> AbstractContextManager[None]:
        """Return a context in which the student's forward passes run the teacher's blocks that are drawn for ``update``."""
        drawn = self.drawn(seed, update, progress)
        return swapped(student.network, {index: self.blocks[index] for index in drawn}) if drawn else nullcontext()

    def drawn(self, seed: int, update: int, progress: float) -> list[BlockIndex]:
        """Return the indices whose blocks are replaced in an update."""
        draws = stream(seed, "swap", update).random(len(self.blocks)) if self.blocks else ()
        depths = ((number + 1) / len(self.blocks) for number in range(len(self.blocks)))
        return [
            index
            for index, draw, depth in zip(self.blocks, draws, depths, strict=True)
            if draw < self.schedule.probability(progress, depth)
        ]
