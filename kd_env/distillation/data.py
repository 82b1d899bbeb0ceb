"""What every run on one task and pool shares. In: a task and a bank. Out: encoded splits, without test."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kd_env.bank import KnowledgeBank
from kd_env.models.encode import Reader
from kd_env.models.networks import reader
from kd_env.tasks import Split, Task
from kd_env.types import Inputs


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
