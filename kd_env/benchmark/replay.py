"""Check a record by its trace. In: a results folder and a trial's id. Out: what differs when the actions of its trace are taken again.

The trace holds all weights exactly, and the rest follows from the record's settings and seed. So the policy does not run, except where its
decisions carry a gradient (`amtml`, `camkd`, ...): there it decides again, and its decisions must equal those of the trace. Whether another
policy would decide so again is not checked. The numbers of forwarded examples, the time and the memory are not compared.
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
from kd_env.benchmark.identity import identity_differences
from kd_env.benchmark.rerun import shown, trial_of
from kd_env.benchmark.run_trial import evaluate_on_test
from kd_env.benchmark.traced_numbers import traced_differences
from kd_env.benchmark.versions import explained, other_processor
from kd_env.distillation import Distillation
from kd_env.distillation.reward_split import RewardSplit
from kd_env.envs.decisions import RecordedDecision, from_numbers, of_action, strength_names, to_numbers
from kd_env.envs.selection import Selection
from kd_env.errors import InputError
from kd_env.policies.registry import TEACHER_SELECTION
from kd_env.randomness import reproducible
from kd_env.types import Decision, DecodedAction

POPULATION_TOLERANCE = 0.01
"""Largest difference between a student taught in a population and the same student alone, whose arithmetic is rounded differently."""


def replay(directory: Path, trial: str) -> list[str]:
    """Return the differences between the record and a new run of its actions, one line each; empty if there are none.

    Raises:
        InputError: there is no such record or trace, or its task or pool has changed.
    """
    by_id = {record["trial"]: record for record in records.read(directory)}
    if trial not in by_id:
        raise spec.unknown(f"trial in {directory}", trial, by_id)
    return replay_record(directory, by_id[trial])


def trace_file(directory: Path, trial: str) -> Path:
    """Return where the trace of a trial is kept."""
    return directory / "traces" / f"{trial}.parquet"


def replay_record(directory: Path, record: records.Record) -> list[str]:
    """Return what :func:`replay` returns, for a record of the folder.

    If the student cannot be taught to the end as the trace says, its scores, its curve and the trace's numbers are not compared.
    """
    trial = record["trial"]
    env: Any = gym.make_vec(vectorization_mode="vector_entry_point", **{"id": TEACHER_SELECTION, **record["env"]}).unwrapped
    selection: Selection = env.selection
    if selection.data.bank.fingerprint != record["bank"]:
        changed = [f"the task or the teachers of pool {record['pool']!r} have changed", other_processor(record["versions"])]
        raise InputError(f"trial {trial}: {'; '.join(filter(None, changed))}; make the record again")
    selection.begin(record["seed"])
    differences = identity_differences(record, selection)
    run = selection.distillation
    trace = read_trace(trace_file(directory, trial))
    tolerance = POPULATION_TOLERANCE if record["config"].get("population", 1) > 1 else 0.0
    curve: dict[int, float] = {}
    with reproducible():
        if trace.attrs["differentiable"]:  # its numbers alone do not say how the student was taught
            policy = trial_of(record).resolved.policy.build(env, record["seed"])
            stopped = _teach_again(selection, trace, tolerance, curve, lambda: policy.act(selection.observation()))
        else:
            stopped = _teach_again(selection, trace, tolerance, curve)
    if stopped:
        return explained(differences + stopped, record["versions"])
    recorded_curve = {point["update"]: point.get("validation") for point in record["curve"]}
    if recorded_curve.keys() != curve.keys() or not all(_close(recorded_curve[update], curve[update], tolerance) for update in curve):
        recorded, replayed = (shown(list(validations.values())) for validations in (recorded_curve, curve))
        differences.append(f"curve: recorded the validation {recorded}, replayed {replayed}")
    differences += [
        f"{name}: recorded {record[name]!r}, replayed {score!r}"
        for name, score in _scores(record, run, selection.distillation.reward_split).items()
        if not _close(record[name], score, tolerance)
    ]
    without_peers = trace[trace["slot"] < selection.settings.distillation.batch_size]
    return explained(differences + traced_differences(record, without_peers, run.num_teachers), record["versions"])


def _scores(record: records.Record, run: Distillation, split: RewardSplit) -> dict[str, float | bool | None]:
    """Return the scores of a student that was taught again, by the names that its record gives them."""
    scores: dict[str, float | bool | None] = {"diverged": bool(run.diverged[0]), **dict.fromkeys(("validation", "reward_split", "test"))}
    if not run.diverged[0]:
        run = run.of_student(0)  # the others are its peers
        scores["validation"] = float(run.validate()[1][0])
        scores["reward_split"] = float(run.student.evaluate(*split.at(split.positions[0]))[1][0])
        if record["config"].get("test", True):
            scores["test"] = evaluate_on_test(tasks.load(record["env"]["task"]), run)
    return scores


def _close(recorded: float | None, replayed: float | None, tolerance: float) -> bool:
    """Return whether two scores are equal, or both are numbers that differ by at most the tolerance."""
    if recorded is None or replayed is None:
        return recorded is replayed
    return recorded == replayed or bool(np.isclose(recorded, replayed, rtol=0.0, atol=tolerance))


def _teach_again(
    selection: Selection, trace: pd.DataFrame, tolerance: float, curve: dict[int, float], decide: Callable[[], Decision] | None = None
) -> list[str]:
    """Teach the student of ``selection`` as the trace says, or as ``decide`` says; return the first difference, if there is any.

    Args:
        curve: filled with the student's validation by the number of updates, where the environment measures it.
    """
    run, options = selection.distillation, selection.settings
    slot, teacher, weight, ids, ce = (trace[name].to_numpy() for name in ("slot", "teacher", "weight", "example_id", "student_ce"))
    whole, labelled = "by_knowledge" in trace, selection.data.task.train.labels >= 0
    decided, widths = {name: _numbers(trace[name]) for name in DECIDED if name in trace}, _widths(selection, whole)
    if {name: rows.shape[1] for name, rows in decided.items()} != widths:
        return [f"the record's trace does not hold what its actions decide: {', '.join(widths) or 'weights alone'}"]
    slots = options.distillation.num_students * options.distillation.batch_size
    if not np.isin(slot, np.arange(slots)).all() or not np.isin(teacher, np.arange(-1, run.num_teachers)).all():
        return ["the record's trace names slots or teachers that do not exist"]
    if not whole and not np.array_equal(teacher >= 0, weight > 0.0):
        return ["the record's trace has a teacher without weight, or weight without a teacher"]
    ends = np.searchsorted(trace["update"].to_numpy(), np.arange(options.distillation.updates + 1))
    for update in range(options.distillation.updates):
        rows = slice(ends[update], ends[update + 1])
        if ends[update] == len(trace) and not np.isfinite(run.validate()[0][0]):
            run.diverged[0] = True  # as the environment found it, before the run itself would
            curve.pop(update, None)
        if run.diverged[0]:
            break
        if run.diverged.any():
            return [f"update {update}: a peer had diverged, and the student that replaced it is not in the record; it cannot be replayed"]
        batch = run.observe()
        if len(np.unique(slot[rows])) < slots:
            return [f"update {update}: missing from the record's trace, or some of its slots are"]
        if not np.array_equal(batch.example_ids[slot[rows]], ids[rows]):
            return [f"update {update}: the record taught other examples"]
        weights = np.zeros((slots, run.num_teachers), dtype=np.float32)
        chosen = teacher[rows] >= 0
        weights[slot[rows][chosen], teacher[rows][chosen]] = weight[rows][chosen]
        first = np.unique(slot[rows], return_index=True)[1]  # a decision has one row per teacher
        columns = {name: values[rows][first] for name, values in decided.items()}
        if not all(np.array_equal(columns[name][slot[rows]], values[rows]) for name, values in decided.items() if name != "by_knowledge"):
            return [f"update {update}: the rows of one decision differ"]
        if whole:
            decision = _decision(run, columns, slot[rows], teacher[rows], decided["by_knowledge"][rows])
            if decide is not None:
                traced, decision = decision, decide()
                if part := _different_part(run, decision, traced, tolerance):
                    return [f"update {update}: the policy decides other {part} than the record"]
        else:
            action = DecodedAction(weights, **{name: values if name == "gates" else values[:, 0] for name, values in columns.items()})
            decision = of_action(run, selection.action_kind, action)
        active = ~run.done
        outcome = run.apply(decision)
        validation = selection.measurement.validation(run, active)
        student_ce = np.where(labelled[ids[rows]], outcome.student_ce.float().cpu().numpy()[slot[rows]], np.nan)
        if not np.allclose(student_ce, ce[rows], tolerance, tolerance, equal_nan=True):
            return [f"update {update}: the student's cross-entropy differs from the record's"]
        if validation is not None and np.isfinite(validation[0]) and not run.diverged[0]:
            curve[update + 1] = float(validation[0])
    end = int(run.update[0])
    return [] if ends[end] == len(trace) else [f"the record's trace continues after update {end}, the last one"]


def _decision(run: Distillation, columns: dict[str, np.ndarray], slot: np.ndarray, teacher: np.ndarray, weights: np.ndarray) -> Decision:
    """Return the decision that some rows of a trace hold."""
    like = run.observe().teacher_logits
    by_slot = np.zeros((len(columns["strengths"]), len(run.loss.terms), run.num_teachers), dtype=np.float32)
    has_teacher = teacher >= 0
    by_slot[slot[has_teacher], :, teacher[has_teacher]] = weights[has_teacher]
    return from_numbers(run, RecordedDecision(by_slot, columns["strengths"], columns["temperature"][:, 0]), like)


def _different_part(run: Distillation, decision: Decision, traced: Decision, tolerance: float) -> str:
    """Return the name of the first part of ``decision`` that differs from the traced one; empty if none does."""
    new, old = to_numbers(run, decision), to_numbers(run, traced)
    for name, new_part, old_part in zip(RecordedDecision._fields, new, old, strict=True):
        if not np.allclose(new_part, old_part, max(tolerance, 1e-6), max(tolerance, 1e-6), equal_nan=True):
            return name
    return ""


def _widths(selection: Selection, whole: bool) -> dict[str, int]:
    """Return the columns of the trace besides weights, and how many numbers a decision has in each."""
    if whole:
        run = selection.distillation
        return {"by_knowledge": len(run.loss.terms), "strengths": len(strength_names(run)), "temperature": 1}
    return selection.action_kind.trace_columns


def _numbers(column: pd.Series) -> np.ndarray:
    """Return a column of numbers or of lists as ``[rows, width]``; width 0 if the lists differ in length."""
    rows = [np.atleast_1d(value) for value in column]
    return np.array(rows) if len({row.shape for row in rows}) == 1 else np.zeros((len(rows), 0), dtype=np.float32)
