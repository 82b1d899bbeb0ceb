"""Populations: S students in one batched step beside S runs of their own. In: a task's name. Out: a comparison for each S."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from kd_env.distillation import Distillation
from speed.measure import Row, Subject, compare
from speed.updates import slots, uniform

SIZES = (8, 32)


def beside_lone(task: str, device: torch.device, turns: int, count: int) -> list[Row]:
    """Students taught by all teachers alike, ``count`` updates of each in a block.

    Raises:
        AssertionError: the two make different students, so their times say nothing.
    """
    selection = slots(task, device, precision="float32").selection
    teach, name = uniform(selection), selection.settings.distillation.student.partition("(")[0]
    made: list[Row] = []
    for size in SIZES:
        lone = [Distillation(selection.data, selection.settings.distillation, seed) for seed in range(size)]
        population = Distillation(selection.data, replace(selection.settings.distillation, num_students=size), 0)
        for _ in range(5):
            difference = abs(sum(map(teach, lone)) - teach(population)) / size
            assert difference < 1e-3, f"{task}: {size} lone students and their population differ by {difference} in loss"
        examples = size * selection.settings.distillation.batch_size * count
        subjects = [
            Subject(f"{size} lone students, one after the other", _blocks(teach, lone, count), examples),
            Subject(f"a population of {size}", _blocks(teach, [population], count), examples),
        ]
        made += compare(
            f"Populations: {task}, {name}, S={size}, B={selection.settings.distillation.batch_size}", subjects, "examples/s", turns
        )
    return made


def _blocks(teach: Callable[[Distillation], float], runs: list[Distillation], count: int) -> Callable[[], object]:
    return lambda: [teach(run) for run in runs for _ in range(count)]
