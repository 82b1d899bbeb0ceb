"""Encode a task once for all runs on it. In: a task and a bank. Out: encoded splits, without test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from kd_env.bank import KnowledgeBank
from kd_env.bank.bank import TeacherOutputs
from kd_env.bank.drift import after_drift
from kd_env.distillation.calibration import calibrated
from kd_env.models.encode import Reader, take
from kd_env.models.networks import reader
from kd_env.tasks import Split, Task
from kd_env.teachers.live import LiveTeachers
from kd_env.types import Batch, Inputs, ModelOutput


@dataclass(frozen=True)
class EncodedTask:
    """A task as tensors, and the bank of its teachers' outputs. It never changes and does not contain the test split.

    Attributes:
        task: task without its test split.
        bank: outputs of the teachers for every example.
        inputs: encoded inputs of ``train``, ``reward`` and ``validation``.
        labels: labels of the same splits, each ``[N]``.
        read: function that encodes raw inputs for the student; ``inputs`` are encoded with it.
        live: networks of the teachers, for ``teacher_answers=live``.
    """

    task: Task
    bank: KnowledgeBank
    inputs: dict[str, Inputs]
    labels: dict[str, Tensor]
    read: Reader
    live: LiveTeachers | None = None

    @classmethod
    def of(cls, task: Task, bank: KnowledgeBank, student: str | None = None, live: LiveTeachers | None = None) -> EncodedTask:
        """Encode the splits of ``task`` except test for ``student``, by default the task's default student."""
        task = task.development()
        read = reader(task.defaults.student if student is None else student, task)
        splits: dict[str, Split] = {"train": task.train, "reward": task.reward, "validation": task.validation}
        inputs = {name: read(split.inputs) for name, split in splits.items()}
        return cls(task, bank, inputs, {name: torch.from_numpy(split.labels) for name, split in splits.items()}, read, live)

    def example(self) -> Inputs:
        """Return the first training example on the CPU, to find the shapes of a student's outputs."""
        return take(self.inputs["train"], slice(0, 1), torch.device("cpu"))

    def batch(
        self,
        split: str,
        examples: np.ndarray,
        output: ModelOutput,
        update: np.ndarray,
        progress: np.ndarray,
        extra_outputs: frozenset[str] = frozenset(),
        teacher_temperatures: np.ndarray | None = None,
        live: Sequence[ModelOutput] | None = None,
    ) -> Batch:
        """Return examples of a split as a mini-batch. The teachers' outputs have the type and device of the student's ``output``.

        If the pool has a drift, training examples get the teachers' outputs before or after the change, by each student's progress.

        Args:
            split: name of the split.
            examples: positions of the examples in the split, ``[rows]``.
            output: outputs of the students for these examples; they are detached.
            update: updates so far, ``[S]``.
            progress: part of the budget that is spent, ``[S]``.
            extra_outputs: outputs of the teachers beyond logits and features, such as ``layers``.
            teacher_temperatures: what the teachers' logits are divided by, ``[S, K]``; by default nothing.
            live: outputs of the K teachers, in place of the bank's.
        """

        def tensors(arrays: Sequence[np.ndarray]) -> tuple[Tensor, ...]:
            return tuple(torch.from_numpy(array).to(output.logits) for array in arrays)

        teachers = self.bank.gather(split, examples, extra_outputs) if live is None else _arrays(live, extra_outputs)
        drift = self.bank.drift
        if drift is not None and split == "train":
            teachers = after_drift(teachers, drift, np.repeat(progress >= drift.at, len(examples) // len(progress)))
        if teacher_temperatures is not None:
            teacher_temperatures = np.repeat(teacher_temperatures, len(examples) // len(teacher_temperatures), axis=0)  # [rows, K]
        return Batch(
            update=update,
            progress=progress,
            example_ids=examples,
            labels=self.labels[split][examples].to(output.logits.device),
            teacher_logits=calibrated(teachers.logits, teacher_temperatures).to(output.logits),
            teacher_features=tensors(teachers.features),
            teacher_layers=tensors(teachers.layers),
            teacher_attention=tensors(teachers.attention),
            teacher_maps=tensors(teachers.maps),
            teacher_stages=tuple(dict(zip(stages, tensors(list(stages.values())), strict=True)) for stages in teachers.stages),
            student=ModelOutput(output.logits.detach(), output.features.detach()),
        )


def _arrays(outputs: Sequence[ModelOutput], extra_outputs: frozenset[str]) -> TeacherOutputs:
    """Return the outputs of live teachers as a bank returns its own."""

    def array(tensor: Tensor) -> np.ndarray:
        values: np.ndarray = tensor.float().cpu().numpy()
        return values

    extra = {name: tuple(array(output.named(name)) for output in outputs) for name in extra_outputs if "." not in name}
    stages: tuple[dict[str, np.ndarray], ...] = ()
    if len(extra) < len(extra_outputs):
        stages = tuple({stage: array(maps) for stage, maps in output.stages.items()} for output in outputs)
    logits, features = np.stack([array(output.logits) for output in outputs], 1), tuple(array(output.features) for output in outputs)
    return TeacherOutputs(logits, features, **extra, stages=stages)
