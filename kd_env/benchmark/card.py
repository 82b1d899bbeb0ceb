"""Write the model card of a distilled student. In: its folder, the records of its trials, and its teachers. Out: README.md in that folder.

Latency is the median time of a single example, including the tokenizer, on one thread of this machine's CPU.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment

from kd_env.benchmark.card_metadata import front_matter, library_of
from kd_env.benchmark.grouping import by_setting
from kd_env.benchmark.low_bit_card import low_bit_section
from kd_env.benchmark.overview import column_names
from kd_env.benchmark.records import Record
from kd_env.benchmark.report_text import NO_VALUE, interval, number
from kd_env.benchmark.statistics import mean_interval
from kd_env.benchmark.summary import records_by_policy, uses_reward_labels
from kd_env.errors import InputError
from kd_env.tasks import Split, Task
from kd_env.tasks.task import SPLITS
from kd_env.teachers import NetworkTeacher, Teacher, load_pool
from kd_env.teachers.checkpoint import CheckpointTeacher

TIMED = 32
"""Number of validation examples on which latency is measured."""


def write_card(
    folder: Path,
    task: Task,
    teachers: str | None,
    command: str,
    of_policy: Sequence[Record],
    best: Record,
    compared: Sequence[Record] = (),
    diverged: int = 0,
) -> None:
    """Write the card of the student in ``folder``.

    Args:
        folder: folder of the student's checkpoint.
        task: the task.
        teachers: name of the pool. Default: the task's.
        command: the command line.
        of_policy: the records of the student's policy, one for each seed.
        best: the record of the student, one of ``of_policy``.
        compared: the records of all policies that were compared with it. Default: of its own policy alone.
        diverged: number of further seeds of the student's policy that diverged.
    """
    pool = load_pool(task.defaults.pool if teachers is None else teachers, task)
    student = CheckpointTeacher(str(folder), task.development(), "this student")
    rows = [network_row(network, task) for network in (student, *pool.teachers)]
    scores = {split: _mean_score(of_policy, split) for split in ("test", "validation")}
    test = best["test"] if best["test"] is not None or task.test is None else float(rows[0][1])  # trials of --no-test have no test score
    policies = _policy_rows(compared, best)
    view = {
        "task": task,
        "kept": best,
        "seeds": [record["seed"] for record in of_policy],
        "scores": scores,
        "kept_scores": {"test": NO_VALUE if test is None else number(test), "validation": number(best["validation"])},
        "policies": policies if len(policies) > 1 else [],
        "num_compared": len(compared),
        "diverged": diverged,
        "sizes": {split: len(getattr(task, split)) for split in SPLITS if getattr(task, split) is not None},
        "rows": rows,
        "selection": list(zip(best["teachers"], (number(rate) for rate in best["selection_rate"]), strict=True)),
        "taught_by_teachers": any(best["selection_rate"]),
        "uses_reward_labels": uses_reward_labels(best["access"]),
        "command": command,
        "front_matter": front_matter(task, best["student"], test, library_of(folder)),
        "library": library_of(folder),
        "low_bit": low_bit_section(student.network, library_of(folder)),
        "pipeline": "text-classification" if task.kind == "text" else "image-classification",
    }
    template = files("kd_env.benchmark").joinpath("card.md.jinja").read_text()
    (folder / "README.md").write_text(Environment(trim_blocks=True, lstrip_blocks=True).from_string(template).render(view))


def _policy_rows(compared: Sequence[Record], best: Record) -> list[list[str]]:
    """Return the rows of the table of policies, the best on validation first; one for each policy of each setting."""
    settings = by_setting(compared)
    rows = []
    for name, group in zip(column_names(list(settings)), settings.values(), strict=True):
        for policy, runs in records_by_policy(group).items():
            label = policy if len(settings) == 1 else f"{policy}, {name}"
            label = f"**{label}**" if best in runs else label
            values = [record["validation"] for record in runs if not record["diverged"]]
            cells = [label, str(len(runs)), _mean_score(runs, "validation"), _mean_score(runs, "test")]
            rows.append((float(np.mean(values)) if values else -math.inf, cells))
    return [cells for _, cells in sorted(rows, key=lambda row: -row[0])]


def _mean_score(records: Sequence[Record], split: str) -> str:
    """Return the mean score on a split with its interval over the seeds; that of two seeds can be wider than the range of the metric."""
    values = [record[split] for record in records if record[split] is not None]
    if len(values) == 2:
        return f"{number(float(np.mean(values)))} (2 seeds, no interval)"
    return interval(float(np.mean(values)), *mean_interval(values)) if values else NO_VALUE


def network_row(teacher: Teacher, task: Task) -> list[str]:
    """Return the cells of a network: name, test score, parameters, size and latency."""
    if isinstance(teacher, NetworkTeacher | CheckpointTeacher):
        count = sum(parameter.numel() for parameter in teacher.network.parameters())
        cells = [f"{count:,}", f"{4e-6 * count:.1f}", f"{_milliseconds(teacher, task.validation):.1f}"]
        return [teacher.name, _test_score(teacher, task), *cells]
    try:
        score = _test_score(teacher, task)
    except InputError:  # a user-defined teacher need not have answers for test, which no bank asks for
        score = NO_VALUE
    return [teacher.name, score, NO_VALUE, NO_VALUE, NO_VALUE]


def _test_score(teacher: Teacher, task: Task) -> str:
    return NO_VALUE if task.test is None else f"{task.score(_predicted_classes(teacher, task.test), task.test.labels):.3f}"


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
