"""Compare populations, S students in one batched step, with S separate runs. In: a task's name. Out: rows of a comparison for each S."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from kd_env.distillation import Distillation
from speed.measure import Row, Subject, compare
from speed.updates import slots, uniform


def against_separate_runs(task: str, device: torch.device, sizes: Sequence[int], turns: int, count: int) -> list[Row]:
    """Train populations of ``sizes`` students, and as many lone students, by equal weights. A block has ``count`` updates of each student.

    Raises:
        AssertionError: the two have different losses, so their times cannot be compared.
    """
    selection = slots(task, device, precision="float32").selection
    teach, name = uniform(selection), selection.settings.distillation.student.partition("(")[0]
    table: list[Row] = []
    for size in sizes:
        separate = [Distillation(selection.data, selection.settings.distillation, seed) for seed in range(size)]
        population = Distillation(selection.data, replace(selection.settings.distillation, num_students=size), 0)
        for _ in range(5):
            difference = abs(sum(map(teach, separate)) - teach(population)) / size
            assert difference < 1e-3, f"{task}: {size} separate students and their population differ by {difference} in loss"
        examples = size * selection.settings.distillation.batch_size * count
        subjects = [
            Subject(f"{size} lone students, one after the other", _blocks(teach, separate, count), examples),
            Subject(f"a population of {size}", _blocks(teach, [population], count), examples),
        ]
        table += compare(
            f"Populations: {task}, {name}, S={size}, B={selection.settings.distillation.batch_size}", subjects, "examples/s", turns
        )
    return table


def _blocks(teach: Callable[[Distillation], float], runs: list[Distillation], count: int) -> Callable[[], object]:
    return lambda: [teach(run) for run in runs for _ in range(count)]
