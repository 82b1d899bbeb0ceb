"""Train a student with a hand-written loop, the baseline of the other benchmarks.

In: the encoded task and the settings of a run. Out: the same student as from a :class:`~kd_env.distillation.Distillation` with equal
weights, without a bank, decisions, observations or rewards. All data are in memory, and the order of an epoch is drawn at its start.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import kl_div, log_softmax

from kd_env.distillation import EncodedTask
from kd_env.distillation.settings import DistillationSettings
from kd_env.models.networks import build
from kd_env.randomness import stream
from kd_env.student.optimizer import OptimizerOptions


class PlainLoop:
    """Trains a student on the mean loss over all teachers."""

    def __init__(self, data: EncodedTask, settings: DistillationSettings, seed: int, device: torch.device) -> None:
        """Load inputs and teacher logits as tensors on ``device``."""
        self.network = build(settings.student, data.task, seed).to(device)
        self.optimizer = OptimizerOptions.of(settings.optimizer).build(self.network)
        self.inputs = {name: tensor.to(device) for name, tensor in data.inputs["train"].items()}
        size = len(data.labels["train"])
        self.teacher_logits = torch.from_numpy(data.bank.gather("train", np.arange(size)).logits).to(device)  # [N, K, C]
        self.temperature, self.batch_size, self.seed, self.device = settings.temperature, settings.batch_size, seed, device
        self.epoch = 0
        self.batches: list[Tensor] = []

    def update(self) -> float:
        """Train on one mini-batch and return its loss."""
        if not self.batches:
            order = torch.from_numpy(stream(self.seed, "order", self.epoch).permutation(len(self.teacher_logits)))
            self.batches = [batch for batch in torch.split(order.to(self.device), self.batch_size) if len(batch) == self.batch_size][::-1]
            self.epoch += 1
        rows = self.batches.pop()
        student = self.network(**{name: tensor[rows] for name, tensor in self.inputs.items()}).logits  # [B, C]
        log_q = log_softmax(student / self.temperature, 1)[:, None]
        log_p = log_softmax(self.teacher_logits[rows] / self.temperature, 2)  # [B, K, C]
        divergence = kl_div(log_q.expand_as(log_p), log_p, reduction="none", log_target=True).sum(2).mean()
        loss = self.temperature**2 * divergence
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        return float(loss.detach())
