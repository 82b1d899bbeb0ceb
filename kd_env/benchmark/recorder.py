"""Record a trial by listening to the steps of its environment, so that all policies leave the same data.

In: :class:`~kd_env.envs.step.Step`. Out: a learning curve, selection statistics, and the trace, which has a row for each teacher with
weight in a decision; ``kd_env.analysis.traces`` reads it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet

from kd_env.analysis.traces import DECIDED, SCHEMA
from kd_env.benchmark import finished_run
from kd_env.distillation import Distillation
from kd_env.envs.decisions import RecordedDecision, to_numbers
from kd_env.envs.selection import Selection
from kd_env.envs.step import Step
from kd_env.paths import naming, partial_file
from kd_env.types import Decision, Observation

_SAVED_ATTRIBUTES = (
    "_weights", "_weight_entropy", "_decisions", "_differentiable", "_selection_entropies", "_losses", "curve", "reward_sum",
    "reward_forward_examples", "_unreported",
)  # fmt: skip
"""Attributes of a recorder that a checkpoint takes as they are."""


class Recorder:
    """Records one run of one student of an environment: the first that is finished after ``skip`` others.

    A run that is reset before its end leaves nothing. The trace also holds the decisions about ``peers``, the students after this one that
    teach it, in the slots after its own; everything else is about this student alone.
    """

    def __init__(
        self,
        selection: Selection,
        report: Callable[[int, float | None], None] | None = None,
        student: int = 0,
        skip: int = 0,
        peers: int = 0,
        entropy: Callable[[Observation], np.ndarray | None] | None = None,
    ) -> None:
        """Start without steps.

        Args:
            report: called with progress, see :data:`~kd_env.benchmark.run_trial.Report`.
            student: which student of the environment to record.
            skip: number of finished runs before the one to record.
            peers: number of students after this one that belong to the trial.
            entropy: returns the entropy of the policy's selection probabilities ``[rows]``.
        """
        self._student, self._skip = student, skip
        self.before: list[Distillation] = []  # finished runs before the one that is recorded
        size = selection.settings.distillation.batch_size
        self._instances = slice(student * size, (student + 1) * size)
        self._traced = slice(student * size, (student + 1 + peers) * size)
        groups = selection.data.task.train.groups
        self._groups = np.full(len(selection.data.task.train), -1) if groups is None else groups
        self._labelled = selection.data.task.train.labels >= 0
        self._names = {"group_names": selection.data.task.group_names, "teacher_names": selection.pool.names}
        self._updates = selection.settings.distillation.updates
        self._report = report
        self._unreported = 0
        self._selection = selection
        self._policy_entropy = entropy
        self.finished: Distillation | None = None  # the run that was recorded; a learner may start more of them
        self._ended_in: Distillation | None = None  # where the student ended; what a population begins in its place does not count
        self.reward_forward_examples = 0  # of this student, over all of its finished runs
        self.reward_split = selection.distillation.reward_split  # as the student of the recorded run has it
        self._begin()

    def _begin(self) -> None:
        self._columns: dict[str, list[np.ndarray]] = {name: [] for name in SCHEMA}
        self._more: dict[str, list[np.ndarray]] = {}
        self._weights = np.zeros(len(self._names["teacher_names"]))
        self._weight_entropy, self._decisions, self._differentiable = 0.0, 0, False
        self._selection_entropies: list[float] = []
        self._losses: list[float] = []
        self.curve: list[dict[str, Any]] = []
        self.reward_sum = 0.0

    def __call__(self, step: Step) -> None:
        """Record one update."""
        if self.finished is not None or not step.active[self._student] or self._selection.distillation is self._ended_in:
            return
        update, instances = int(step.batch.update[self._student]), self._instances
        if update == 0:
            self._begin()
        over = bool(step.diverged[self._student]) or update + 1 >= self._updates
        ended = self._selection.finished[self._student] if over else None
        weights, rewards = step.weights[instances], np.split(step.rewards, self._selection.num_students)[self._student]
        validation = None if step.validation is None else float(step.validation[self._student])
        validation = None if validation is None or math.isnan(validation) else validation
        self._weights += weights.sum(0)
        self._weight_entropy += float(-(weights * np.log(np.maximum(weights, 1e-30))).sum())
        self._decisions += len(weights)
        self.reward_sum += float(rewards.mean())
        labelled = self._labelled[step.batch.example_ids[instances]]
        if labelled.any():
            self._losses.append(float(step.student_ce[instances][labelled].mean()))
        self._unreported += 1
        self._take_rows(step, update)
        if validation is not None and not over:
            self._measure_selection_entropy()
        if validation is not None:
            self.curve.append({"update": update + 1, "validation": validation, "train_loss": float(np.mean(self._losses or [0.0]))})
            self._losses = []
        if self._report and (validation is not None or self._unreported >= 50 or over):
            self._report(self._unreported, validation)
            self._unreported = 0
        if ended is not None:
            self._ended_in = self._selection.distillation
            self.reward_forward_examples += int(self._selection.meter.state.forward_examples[self._student])
            self.reward_split = self._selection.distillation.reward_split.of_student(self._student)
        if ended is not None and len(self.before) < self._skip:
            self.before.append(ended)
        else:
            self.finished = ended

    @property
    def selection_rate(self) -> list[float]:
        """Mean weight of each teacher ``[K]``."""
        rate: list[float] = (self._weights / max(self._decisions, 1)).tolist()
        return rate

    @property
    def weight_entropy(self) -> float:
        """Mean entropy of a decision's weights over ln K; 0 where K is 1."""
        return self._weight_entropy / max(self._decisions, 1) / math.log(max(len(self._weights), 2))

    @property
    def selection_entropy(self) -> float | None:
        """Mean entropy of the policy's selection probabilities in [0, 1], measured with validation; ``None`` where it has none."""
        return float(np.mean(self._selection_entropies)) if self._selection_entropies else None

    def write(self, path: Path, trial: str) -> None:
        """Write the trace to a file, completely or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        arrays = {name: pyarrow.array(np.concatenate(self._columns[name]), kind) for name, kind in SCHEMA.items()}
        for name, parts in self._more.items():
            rows = np.concatenate(parts)
            arrays[name] = pyarrow.array(rows if rows.ndim == 1 else list(rows), DECIDED[name])
        metadata = {
            "trial": trial,
            "differentiable": json.dumps(self._differentiable),
            **{name: json.dumps(list(value)) for name, value in self._names.items()},
        }
        partial = partial_file(path)
        with naming(path):
            table = pyarrow.table(arrays).replace_schema_metadata(metadata)
            pyarrow.parquet.write_table(table, partial, compression="zstd", write_page_checksum=True)
            partial.replace(path)

    def state(self) -> dict[str, Any]:
        """Return all that was recorded so far; :func:`kd_env.serialization.pack` takes it."""
        self._columns = {name: [_narrow(name, np.concatenate(parts))] if parts else [] for name, parts in self._columns.items()}
        self._more = {name: [np.concatenate(parts)] for name, parts in self._more.items()}
        return {
            **{name: getattr(self, name) for name in _SAVED_ATTRIBUTES},
            "columns": {name: parts[0] for name, parts in self._columns.items() if parts},
            "more": {name: parts[0] for name, parts in self._more.items()},
            "before": [finished_run.state(run) for run in self.before],
            "finished": None if self.finished is None else finished_run.state(self.finished),
            "ended_here": self._ended_in is self._selection.distillation,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Continue from what :meth:`state` returned. The environment must be in its state of that time."""
        for name in _SAVED_ATTRIBUTES:
            setattr(self, name, state[name])
        self._columns = {name: [state["columns"][name]] if name in state["columns"] else [] for name in SCHEMA}
        self._more = {name: [rows] for name, rows in state["more"].items()}
        split = self._selection.distillation.reward_split
        self.before = [finished_run.load(self._selection, run) for run in state["before"]]
        self.finished = None if state["finished"] is None else finished_run.load(self._selection, state["finished"])
        self.reward_split = split.of_student(self._student) if self.before or self.finished else split
        self._ended_in = self._selection.distillation if state["ended_here"] else None
        if self._report:
            ended = len(self.before) + (self.finished is not None)
            now = 0 if self.finished else int(self._selection.distillation.update[self._student])
            self._report(ended * self._updates + now - self._unreported, None)

    def _measure_selection_entropy(self) -> None:
        if self._policy_entropy is None:
            return
        rows = self._selection.num_slots // self._selection.num_students
        part = slice(self._student * rows, (self._student + 1) * rows)
        entropy = self._policy_entropy({name: block[part] for name, block in self._selection.observation().items()})
        if entropy is not None:
            self._selection_entropies.append(float(np.mean(entropy)))

    def _take_rows(self, step: Step, update: int) -> None:
        def traced(rows: np.ndarray) -> np.ndarray:
            """Return the rows of the instances that the trace holds, from rows per decision or per instance."""
            return np.repeat(rows, len(step.weights) // len(rows), axis=0)[self._traced]

        weights = traced(step.weights)
        recorded = None if step.decision is None else self._numbers(step.decision)
        has_teacher = weights != 0.0 if recorded is None else (recorded.weights != 0.0).any(1)
        slot, teacher = np.nonzero(has_teacher)
        untaught = np.flatnonzero(~has_teacher.any(1))  # instances without a teacher have one row, teacher -1
        slot = np.concatenate([slot, untaught])
        teacher = np.concatenate([teacher, np.full(len(untaught), -1)])
        example = traced(step.batch.example_ids)[slot]
        values: list[np.ndarray] = [
            np.full(len(slot), update),
            slot,
            example,
            self._groups[example],
            teacher,
            np.where(teacher < 0, 0.0, weights[slot, teacher]),
            traced(step.rewards)[slot],
            np.where(self._labelled[example], traced(step.student_ce)[slot], np.nan),
        ]
        for name, column in zip(SCHEMA, values, strict=True):
            self._columns[name].append(column)
        action = step.action
        for name, rows in (("gates", action.gates), ("kd_weight", action.kd_weight), ("temperature_scale", action.temperature_scale)):
            if rows is not None:
                self._more.setdefault(name, []).append(traced(rows)[slot])
        if recorded is not None:
            self._differentiable |= step.decision is not None and step.decision.differentiable
            of_teacher = np.where(teacher[:, None] < 0, 0.0, recorded.weights[slot, :, teacher])
            for name, rows in (
                ("by_knowledge", of_teacher),
                ("strengths", recorded.strengths[slot]),
                ("temperature", recorded.temperature[slot]),
            ):
                self._more.setdefault(name, []).append(rows)

    def _numbers(self, decision: Decision) -> RecordedDecision:
        return RecordedDecision(*(part[self._traced] for part in to_numbers(self._selection.distillation, decision)))


def _narrow(name: str, rows: np.ndarray) -> np.ndarray:
    """Return a column in the type in which the trace has it."""
    narrow: np.ndarray = pyarrow.array(rows, SCHEMA[name]).to_numpy()
    return narrow
