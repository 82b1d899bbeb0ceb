"""Measure the processor time of a start: the import, ``kd-env --help``, and the first update on a large task.

In: the number of turns. Out: rows of comparisons.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from kd_env.tasks.in_memory import from_datasets
from speed.measure import Row, Subject, rows, seconds_of
from speed.random_data import Sizes, random_teachers, random_texts

IMPORTS = {
    "import gymnasium": (sys.executable, "-c", "import gymnasium"),
    "import kd_env": (sys.executable, "-c", "import kd_env"),
    "kd-env --help": (sys.executable, "-m", "kd_env", "--help"),
}


def commands(turns: int) -> list[Row]:
    """Time commands in processes of their own, with compiled files in place."""
    subjects = [Subject(name) for name in IMPORTS]
    values = np.array([[_seconds_of_command(command) for command in IMPORTS.values()] for _ in range(turns + 1)])[1:]
    return rows("Start", subjects, "ms", 1e3 * values)


def first_update(examples: int, turns: int) -> list[Row]:
    """Time the first update on a text task in memory with a bank: the splits, the tokenizer, the encoding, the student, one step.

    Imports are not included.
    """
    sizes = Sizes(words=18, shortest=3, classes=2, examples=examples)
    data, teachers = random_texts(sizes), random_teachers(sizes)

    with tempfile.TemporaryDirectory(prefix="kd-env-speed-") as folder:

        def begin() -> None:
            task = from_datasets(data, text="text", name="random-texts")
            keywords: dict[str, Any] = {
                "task": task,
                "teachers": teachers,
                "bank": Path(folder) / "bank",
                "action": "weights",
                "device": "cpu",
            }
            env: Any = gym.make_vec("kd_env/TeacherSelection-v0", num_envs=32, vectorization_mode="vector_entry_point", **keywords)
            env.reset(seed=0)
            env.step(np.zeros(env.action_space.shape, np.float32))

        begin()  # builds the bank
        values = np.array([[seconds_of(begin)] for _ in range(turns)])
    return rows(f"First update: {examples:,} texts, the bank is there", [Subject("first update")], "ms", 1e3 * values)


def _seconds_of_command(command: Sequence[str]) -> float:
    """Return the CPU time of a command."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
