"""Replay: check a claimed record. In: a results folder and a trial's id. Out: what differs when its actions are taken again.

The trace holds every weight exactly, and the rest follows from the record's settings and seed, so no policy is needed. But where decisions
carried a gradient, the policy decides again, and must say the same.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pandas as pd

from kd_env import spec, tasks
from kd_env.analysis.traces import DECIDED, read_trace
from kd_env.benchmark import records
from kd_env.benchmark.run_trial import evaluate_on_test
from kd_env.distillation import Distillation
from kd_env.envs.decisions import RecordedDecision, from_numbers, of_action, to_numbers
from kd_env.envs.selection import Selection
from kd_env.errors import InputError
from kd_env.policies import registry
from kd_env.policies.registry import TEACHER_SELECTION
from kd_env.randomness import one_thread
from kd_env.types import Decision, DecodedAction

TOGETHER = 0.01
"""How far the record of a student that was taught in a population may be from the student alone: both round, differently."""


def replay(directory: Path, trial: str) -> list[str]:
    """Differences between the record and a new run of its actions, a line each; empty when all is equal.

    Raises:
        InputError: no such record or trace, or a task or pool that is no longer the same.
    """
    found = {record["trial"]: record for record in records.read(directory)}
    if trial not in found:
        raise spec.unknown(f"trial in {directory}", trial, found)
    return replay_record(directory, found[trial])


def trace_file(directory: Path, trial: str) -> Path:
    """Return where the trace of a trial is kept."""
    return directory / "traces" / f"{trial}.parquet"


def replay_record(directory: Path, record: records.Record) -> list[str]:
    """Return what :func:`replay` returns, for a record of the folder."""
    trial = record["trial"]
    env = gym.make_vec(vectorization_mode="vector_entry_point", **{"id": TEACHER_SELECTION, **record["env"]})
    selection: Selection = env.unwrapped.selection  # type: ignore[attr-defined]
    if selection.data.bank.fingerprint != record["bank"]:
        raise InputError(
            f"trial {trial}: the task or the teachers of pool {record['pool']!r} are no longer the same; make the record again"
        )
    selection.begin(record["seed"])
    run = selection.distillation
    trace = read_trace(trace_file(directory, trial))
    together = record["config"].get("population", 1) > 1
    with one_thread():
        tolerance = TOGETHER if together else 0.0
        if trace.attrs["differentiable"]:  # its weights alone do not say how the student was taught: the policy says it again
            policy = registry.find(record["policy"]).build(env.unwrapped, record["seed"])
            differences = _again(selection, trace, tolerance, lambda: policy.act(selection.observation()))
        else:
            differences = _again(selection, trace, tolerance)
    scores: dict[str, Any] = {"diverged": bool(run.diverged[0]), "validation": None, "test": None}
    if not run.diverged[0]:
        run = run.member(0)  # the others are its peers
        scores["validation"] = float(run.validate()[1][0])
        if record["config"].get("test", True):
            scores["test"] = evaluate_on_test(tasks.load(record["env"]["task"]), run)
    differences += [
        f"{name}: recorded {record[name]!r}, replayed {score!r}"
        for name, score in scores.items()
        if score != record[name] and not (together and None not in (score, record[name]) and np.isclose(score, record[name], atol=TOGETHER))
    ]
    own = trace[trace["slot"] < selection.settings.distillation.batch_size]
    taught = own[own["teacher"] >= 0].groupby("teacher")["weight"].sum() / len(own.drop_duplicates(["update", "slot"]))
    rate = [float(taught.get(teacher, 0.0)) for teacher in range(run.num_teachers)]
    if not np.allclose(rate, np.resize(record["selection_rate"], len(rate)), atol=1e-5):
        differences.append(f"selection_rate: recorded {record['selection_rate']}, the trace says {rate}")
    return differences


def _again(selection: Selection, trace: pd.DataFrame, tolerance: float, decide: Callable[[], Decision] | None = None) -> list[str]:
    run, options = selection.distillation, selection.settings
    slot, teacher, weight, ids, ce = (trace[name].to_numpy() for name in ("slot", "teacher", "weight", "example_id", "student_ce"))
    whole, labelled = "by_knowledge" in trace, selection.data.task.train.labels >= 0
    decided, widths = {name: _numbers(trace[name]) for name in DECIDED if name in trace}, _widths(selection, whole)
    if {name: rows.shape[1] for name, rows in decided.items()} != widths:
        return [f"the record's trace does not hold what its actions decide: {', '.join(widths) or 'weights alone'}"]
    slots = options.distillation.num_students * options.distillation.batch_size
    if not np.isin(slot, np.arange(slots)).all() or not np.isin(teacher, np.arange(-1, run.num_teachers)).all():
        return ["the record's trace names slots or teachers that there are not"]
    if not whole and not np.array_equal(teacher >= 0, weight > 0.0):
        return ["the record's trace has a teacher without weight, or weight without a teacher"]
    ends = np.searchsorted(trace["update"].to_numpy(), np.arange(options.distillation.updates + 1))
    for update in range(options.distillation.updates):
        rows = slice(ends[update], ends[update + 1])
        if ends[update] == len(trace) and not np.isfinite(run.validate()[0][0]):
            run.diverged[0] = True  # as the environment saw it, before the run itself would have
        if run.diverged[0]:
            break
        if run.diverged.any():
            return [f"update {update}: a peer had diverged, and what began in its place is not in the record; it cannot be replayed"]
        features = run.observe()
        if len(np.unique(slot[rows])) < slots:
            return [f"update {update}: the record's trace lacks it, or some of its slots"]
        if not np.array_equal(features.example_ids[slot[rows]], ids[rows]):
            return [f"update {update}: the record taught other examples"]
        weights = np.zeros((slots, run.num_teachers), dtype=np.float32)
        chosen = teacher[rows] >= 0
        weights[slot[rows][chosen], teacher[rows][chosen]] = weight[rows][chosen]
        first = np.unique(slot[rows], return_index=True)[1]  # a decision stands in several rows, one a teacher
        said = {name: values[rows][first] for name, values in decided.items()}
        if not all(np.array_equal(said[name][slot[rows]], values[rows]) for name, values in decided.items() if name != "by_knowledge"):
            return [f"update {update}: the rows of one decision differ in what it was"]
        if whole:
            decision = _decision(run, said, slot[rows], teacher[rows], decided["by_knowledge"][rows])
            if decide is not None:
                kept, decision = decision, decide()
                if differs := _otherwise(run, decision, kept, tolerance):
                    return [f"update {update}: the policy decides other {differs} than the record"]
        else:
            choice = DecodedAction(weights, **{name: values if name == "gates" else values[:, 0] for name, values in said.items()})
            decision = of_action(run, selection.action_kind, choice)
        outcome = run.apply(decision)
        found = np.where(labelled[ids[rows]], outcome.student_ce.float().cpu().numpy()[slot[rows]], np.nan)
        if not np.allclose(found, ce[rows], tolerance, tolerance, equal_nan=True):
            return [f"update {update}: the student's cross-entropy differs from the record's"]
    end = int(run.update[0])
    return [] if ends[end] == len(trace) else [f"the record's trace goes on after update {end}, the last one"]


def _decision(run: Distillation, said: dict[str, np.ndarray], slot: np.ndarray, teacher: np.ndarray, weights: np.ndarray) -> Decision:
    """A whole decision from its rows of the trace."""
    names, like = list(run.terms), run.observe().teacher_logits
    by_slot = np.zeros((len(said["strengths"]), len(names), run.num_teachers), dtype=np.float32)
    asked = teacher >= 0
    by_slot[slot[asked], :, teacher[asked]] = weights[asked]
    return from_numbers(RecordedDecision(by_slot, said["strengths"], said["temperature"][:, 0]), names, run.settings.reads_labels, like)


def _otherwise(run: Distillation, decision: Decision, kept: Decision, tolerance: float) -> str:
    """What of a decision made again is not what the trace keeps, if anything."""
    one, other = (
        to_numbers(each, list(run.terms), run.settings.reads_labels, run.settings.batch_size, run.num_teachers) for each in (decision, kept)
    )
    for name, mine, its in zip(RecordedDecision._fields, one, other, strict=True):
        if not np.allclose(mine, its, max(tolerance, 1e-6), max(tolerance, 1e-6), equal_nan=True):
            return name
    return ""


def _widths(selection: Selection, whole: bool) -> dict[str, int]:
    """Columns beyond weights that actions, or whole decisions, fill, and how many numbers a decision has in each."""
    if whole:
        types = len(selection.distillation.terms)
        return {"by_knowledge": types, "strengths": types + selection.distillation.settings.reads_labels, "temperature": 1}
    return selection.action_kind.trace_columns


def _numbers(column: pd.Series) -> np.ndarray:
    """A column of numbers, or of lists of them, as ``[rows, width]``; of width 0 where the lists are not alike."""
    rows = [np.atleast_1d(one) for one in column]
    return np.array(rows) if len({row.shape for row in rows}) == 1 else np.zeros((len(rows), 0), dtype=np.float32)
