"""Replay: check a claimed record. In: a results folder and a trial's id. Out: what differs when its actions are taken again.

Needs no policy: the trace holds every weight exactly, and the rest follows from the record's settings and seed.
"""

from __future__ import annotations

from pathlib import Path

import gymnasium as gym
import numpy as np
import pandas as pd
import torch

from kd_env import spec, tasks
from kd_env.analysis.traces import read_trace
from kd_env.benchmark import records
from kd_env.benchmark.trial import evaluate_on_test
from kd_env.distillation import Distillation
from kd_env.errors import InputError
from kd_env.types import Decision


def replay(directory: Path, trial: str) -> list[str]:
    """Differences between the record and a new run of its actions, a line each; empty when all is equal.

    Raises:
        InputError: no such record or trace, or a task, pool or bank that is no longer the same thing.
    """
    found = {record["trial"]: record for record in records.read(directory)}
    if trial not in found:
        raise spec.unknown(f"trial in {directory}", trial, found)
    record = found[trial]
    options = {name: value for name, value in record["env"].items() if name != "batch_size"}
    env = gym.make_vec("kd_env/TeacherSelection-v0", vectorization_mode="vector_entry_point", **options)
    selection = env.unwrapped.selection  # type: ignore[attr-defined]
    if list(selection.pool.names) != record["teachers"]:
        raise InputError(
            f"trial {trial}: its teachers were {', '.join(record['teachers'])}, the pool now has {', '.join(selection.pool.names)}"
        )
    run = Distillation(selection.material, selection.settings, record["seed"])
    trace = read_trace(directory / "traces" / f"{trial}.parquet")
    differences = _again(run, trace)
    if record["test"] is not None and not run.diverged:
        scores = {"validation": run.validate()[1], "test": evaluate_on_test(tasks.load(record["env"]["task"]), run.student)}
        differences += [f"{name}: recorded {record[name]!r}, replayed {score!r}" for name, score in scores.items() if score != record[name]]
    return differences


def _again(run: Distillation, trace: pd.DataFrame) -> list[str]:
    options = run.settings
    updates = trace["update"].to_numpy()
    ends = np.searchsorted(updates, np.arange(updates.max() + 2))
    slot, teacher, weight, ids, ce = (trace[name].to_numpy() for name in ("slot", "teacher", "weight", "example_id", "student_ce"))
    for update in range(len(ends) - 1):
        rows = slice(ends[update], ends[update + 1])
        features = run.observe()
        if not np.array_equal(features.example_ids[slot[rows]], ids[rows]):
            return [f"update {update}: the record taught other examples"]
        weights = np.zeros((options.batch_size, run.num_teachers), dtype=np.float32)
        chosen = teacher[rows] >= 0
        weights[slot[rows][chosen], teacher[rows][chosen]] = weight[rows][chosen]
        taught = torch.from_numpy(weights).to(run.student.device, run.student.dtype)
        outcome = run.apply(Decision.response(taught, options.strength, options.temperature))
        if not np.array_equal(outcome.student_ce.float().cpu().numpy()[slot[rows]], ce[rows]):
            return [f"update {update}: the student's cross-entropy differs from the record's"]
    return [] if run.done else [f"the record's trace ends at update {run.update} of {options.updates}"]
