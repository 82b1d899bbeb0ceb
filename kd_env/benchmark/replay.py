"""Replay: check a claimed record. In: a results folder and a trial's id. Out: what differs when its actions are taken again.

Needs no policy: the trace holds every weight exactly, and the rest follows from the record's settings and seed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

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
from kd_env.randomness import one_thread
from kd_env.types import Decision


def replay(directory: Path, trial: str) -> list[str]:
    """Differences between the record and a new run of its actions, a line each; empty when all is equal.

    Raises:
        InputError: no such record or trace, or a task or pool that is no longer the same.
    """
    found = {record["trial"]: record for record in records.read(directory)}
    if trial not in found:
        raise spec.unknown(f"trial in {directory}", trial, found)
    record = found[trial]
    env = gym.make_vec("kd_env/TeacherSelection-v0", vectorization_mode="vector_entry_point", **record["env"])
    selection = env.unwrapped.selection  # type: ignore[attr-defined]
    if selection.material.bank.fingerprint != record["bank"]:
        raise InputError(
            f"trial {trial}: the task or the teachers of pool {record['pool']!r} are no longer the same; make the record again"
        )
    run = Distillation(selection.material, selection.settings, record["seed"])
    trace = read_trace(directory / "traces" / f"{trial}.parquet")
    with one_thread():
        differences = _again(run, trace)
    scores: dict[str, Any] = {"diverged": run.diverged, "validation": None, "test": None}
    if not run.diverged:
        scores["validation"] = run.validate()[1]
        scores["test"] = evaluate_on_test(tasks.load(record["env"]["task"]), run.student)
    differences += [f"{name}: recorded {record[name]!r}, replayed {score!r}" for name, score in scores.items() if score != record[name]]
    taught = trace[trace["teacher"] >= 0].groupby("teacher")["weight"].sum() / len(trace.drop_duplicates(["update", "slot"]))
    rate = [float(taught.get(teacher, 0.0)) for teacher in range(run.num_teachers)]
    if not np.allclose(rate, np.resize(record["selection_rate"], len(rate)), atol=1e-5):
        differences.append(f"selection_rate: recorded {record['selection_rate']}, the trace says {rate}")
    return differences


def _again(run: Distillation, trace: pd.DataFrame) -> list[str]:
    options = run.settings
    slot, teacher, weight, ids, ce = (trace[name].to_numpy() for name in ("slot", "teacher", "weight", "example_id", "student_ce"))
    if not np.isin(slot, np.arange(options.batch_size)).all() or not np.isin(teacher, np.arange(-1, run.num_teachers)).all():
        return ["the record's trace names slots or teachers that there are not"]
    ends = np.searchsorted(trace["update"].to_numpy(), np.arange(options.updates + 1))
    for update in range(options.updates):
        rows = slice(ends[update], ends[update + 1])
        if ends[update] == len(trace) and not np.isfinite(run.validate()[0]):
            run.diverged = True  # as the environment saw it, before the run itself would have
        if run.diverged:
            break
        features = run.observe()
        if len(np.unique(slot[rows])) < options.batch_size:
            return [f"update {update}: the record's trace lacks it, or some of its slots"]
        if not np.array_equal(features.example_ids[slot[rows]], ids[rows]):
            return [f"update {update}: the record taught other examples"]
        weights = np.zeros((options.batch_size, run.num_teachers), dtype=np.float32)
        chosen = teacher[rows] >= 0
        weights[slot[rows][chosen], teacher[rows][chosen]] = weight[rows][chosen]
        taught = torch.from_numpy(weights).to(run.student.device, run.student.dtype)
        outcome = run.apply(Decision.response(taught, options.strength, options.temperature))
        if not np.array_equal(outcome.student_ce.float().cpu().numpy()[slot[rows]], ce[rows], equal_nan=True):
            return [f"update {update}: the student's cross-entropy differs from the record's"]
    return [] if ends[run.update] == len(trace) else [f"the record's trace goes on after update {run.update}, the last one"]
