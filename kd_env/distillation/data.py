"""What every run on one task and pool shares. In: a task and a bank. Out: encoded splits, without test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from kd_env.bank import KnowledgeBank
from kd_env.models.encode import Reader, take
from kd_env.models.networks import reader
from kd_env.tasks import Split, Task
from kd_env.types import Batch, Inputs, ModelOutput


@dataclass(frozen=True)
class EncodedTask:
    """A task as tensors, and the bank of its teachers' outputs. It never changes, and holds nothing of test.

    Attributes:
        task: the task without its test split.
        inputs: encoded inputs of ``train``, ``reward`` and ``validation``.
        labels: their labels, shape ``[N]``.
        read: how the student reads raw inputs; ``inputs`` are read with it.
    """

    task: Task
    bank: KnowledgeBank
    inputs: dict[str, Inputs]
    labels: dict[str, Tensor]
    read: Reader

    @classmethod
    def of(cls, task: Task, bank: KnowledgeBank, student: str | None = None) -> EncodedTask:
        """Encode the development splits of ``task`` for ``student``, by default the task's; test is left out."""
        task = task.development()
        read = reader(task.defaults.student if student is None else student, task)
        splits: dict[str, Split] = {"train": task.train, "reward": task.reward, "validation": task.validation}
        inputs = {name: read(split.inputs) for name, split in splits.items()}
        return cls(task, bank, inputs, {name: torch.from_numpy(split.labels) for name, split in splits.items()}, read)

    def example(self) -> Inputs:
        """Return the first training example on the CPU, to find the shapes of a student's outputs."""
        return take(self.inputs["train"], slice(0, 1), torch.device("cpu"))

    def batch(
        self,
        split: str,
        rows: np.ndarray,
        output: ModelOutput,
        update: np.ndarray,
        progress: np.ndarray,
        extra_outputs: frozenset[str] = frozenset(),
    ) -> Batch:
        """Return rows of a split as a mini-batch, with the teachers' outputs in the type and on the device of the student's ``output``."""

        def tensors(arrays: Sequence[np.ndarray]) -> tuple[Tensor, ...]:
            return tuple(torch.from_numpy(array).to(output.logits) for array in arrays)

        teachers = self.bank.gather(split, rows, extra_outputs)
        return Batch(
            update=update,
            progress=progress,
            example_ids=rows,
            labels=self.labels[split][rows].to(output.logits.device),
            teacher_logits=torch.from_numpy(teachers.logits).to(output.logits),
            teacher_features=tensors(teachers.features),
            teacher_layers=tensors(teachers.layers),
            teacher_attention=tensors(teachers.attention),
            student=ModelOutput(output.logits.detach(), output.features.detach()),
        )
