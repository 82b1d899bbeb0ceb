"""Material: what every run on one task and pool shares. In: a task and a bank. Out: encoded splits, without test."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kd_env.knowledge.bank import KnowledgeBank
from kd_env.student.encode import encode
from kd_env.tasks import Split, Task
from kd_env.types import Inputs


@dataclass(frozen=True)
class Material:
    """What every run on one task and pool shares: encoded splits and the bank. Nothing here changes, nothing here is test."""

    task: Task
    bank: KnowledgeBank
    inputs: dict[str, Inputs]
    labels: dict[str, Tensor]

    @classmethod
    def of(cls, task: Task, bank: KnowledgeBank) -> Material:
        """Encode the three development splits of ``task``; test is left behind."""
        task = task.development()
        splits: dict[str, Split] = {"train": task.train, "reward": task.reward, "validation": task.validation}
        inputs = {name: encode(task, split.inputs) for name, split in splits.items()}
        return cls(task, bank, inputs, {name: torch.from_numpy(split.labels) for name, split in splits.items()})
