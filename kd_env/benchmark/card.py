"""Write the model card of a distilled student. In: its folder, the records of its trials, and its teachers. Out: README.md in that folder.

Latency is the median time of a single example, including the tokenizer, on one thread of this machine's CPU.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment

from kd_env.benchmark.card_metadata import front_matter
from kd_env.benchmark.records import Record
from kd_env.benchmark.report_text import NO_VALUE, interval, number
from kd_env.benchmark.statistics import mean_interval
from kd_env.benchmark.trial import Trial
from kd_env.tasks import Split, Task
from kd_env.teachers import NetworkTeacher, Teacher, load_pool
from kd_env.teachers.checkpoint import CheckpointTeacher

TIMED = 32
"""Number of validation examples on which latency is measured."""


def write_card(folder: Path, trial: Trial, records: Sequence[Record], best: Record) -> None:
    """Write the card of the student in ``folder``. ``best`` is its record, one of ``records``."""
    task = trial.resolved.task
    pool = load_pool(task.defaults.pool if trial.teachers is None else trial.teachers, task)
    student = CheckpointTeacher(str(folder), task.development(), "this student")
    rows = [network_row(network, task) for network in (student, *pool.teachers)]
    scores = {
        split: interval(float(np.mean(values)), *mean_interval(values))
        for split in ("test", "validation")
        for values in [[record[split] for record in records]]
    }
    view = {
        "task": task,
        "kept": best,
        "seeds": [record["seed"] for record in records],
        "scores": scores,
        "kept_scores": {split: number(best[split]) for split in scores},
        "sizes": {split: len(getattr(task, split)) for split in ("train", "reward", "validation", "test")},
        "rows": rows,
        "selection": list(zip(best["teachers"], (number(rate) for rate in best["selection_rate"]), strict=True)),
        "command": trial.command,
        "front_matter": front_matter(task, best["student"], best["test"]),
        "pipeline": "text-classification" if task.kind == "text" else "image-classification",
    }
    template = files("kd_env.benchmark").joinpath("card.md.jinja").read_text()
    (folder / "README.md").write_text(Environment(trim_blocks=True, lstrip_blocks=True).from_string(template).render(view))


def network_row(teacher: Teacher, task: Task) -> list[str]:
    """Return the cells of a network: name, test score, parameters, size and latency."""
    score = NO_VALUE if task.test is None else f"{task.score(_predicted_classes(teacher, task.test), task.test.labels):.3f}"
    match teacher:
        case NetworkTeacher() | CheckpointTeacher():
            count = sum(parameter.numel() for parameter in teacher.network.parameters())
            return [teacher.name, score, f"{count:,}", f"{4e-6 * count:.1f}", f"{_milliseconds(teacher, task.validation):.1f}"]
        case _:
            return [teacher.name, score, NO_VALUE, NO_VALUE, NO_VALUE]


def _predicted_classes(teacher: Teacher, split: Split, batch: int = 256) -> np.ndarray:
    parts = [teacher(split.inputs[start : start + batch]).logits.argmax(1).numpy() for start in range(0, len(split), batch)]
    return np.concatenate(parts)


def _milliseconds(teacher: Callable[[np.ndarray], Any], split: Split) -> float:
    teacher(split.inputs[:1])  # the first call reads the weights
    times = []
    for row in range(min(TIMED, len(split))):
        started = time.perf_counter()
        teacher(split.inputs[row : row + 1])
        times.append(time.perf_counter() - started)
    return 1000 * float(np.median(times))
