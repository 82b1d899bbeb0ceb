"""Run the training loop of fine-tuning: epoch by epoch, with early stopping and a state on disk to resume from.

The state is saved after each epoch, and within an epoch every few minutes and before Ctrl-C or SIGTERM ends the process. On CPU, a loop
that is resumed ends in the same weights.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from kd_env.errors import InputError
from kd_env.interrupts import CHECKPOINT_MINUTES, SaveSchedule, deferred_interrupts, raise_if_interrupted
from kd_env.models import from_checkpoint
from kd_env.models.device import pick_device
from kd_env.models.encode import Reader, TrimmedInputs, take, text_lengths
from kd_env.models.networks import begins_as_checkpoint, build
from kd_env.models.pretrained import open_checkpoint
from kd_env.models.saving import Saveable, reader_to_save
from kd_env.paths import sweep, write_bytes
from kd_env.randomness import seeded
from kd_env.serialization import OtherRunError, add_prefix, from_bytes, to_bytes, with_prefix
from kd_env.student.epoch_order import length_order
from kd_env.student.optimizer import OptimizerOptions
from kd_env.student.student import Student
from kd_env.tasks import Split, Task
from kd_env.teachers.finetune_config import FinetuneConfig
from kd_env.teachers.training_rows import training_rows
from kd_env.types import Inputs

PATIENCE = 2
"""Training stops after this many epochs without a lower held-out loss. With SGD it goes on, since the loss falls late in the schedule."""

FEW_UPDATES = 100
"""With fewer updates a new head has hardly learned, and the user is told."""

ProgressCallback = Callable[[int, int, str], None]
"""Called with the updates done, all updates, and a message, which is empty within an epoch."""


class FinetuneLoop:
    """The network and its optimizer, epoch by epoch.

    Attributes:
        network: the network being trained; after :meth:`run` it has the weights of the best epoch.
        reader: how it reads raw inputs.
    """

    def __init__(
        self, task: Task, config: FinetuneConfig, state_file: Path, identity: dict[str, Any], checkpoint_minutes: float = CHECKPOINT_MINUTES
    ) -> None:
        """Build the network, or load it from ``state_file`` if that exists.

        Args:
            config: with its defaults filled in.
            state_file: holds the state to resume from.
            identity: says which call the state belongs to.
            checkpoint_minutes: time between two saves of the state within an epoch.

        Raises:
            InputError: there are too few examples, or the state belongs to another call.
        """
        assert config.epochs is not None and config.lr is not None and config.max_length is not None  # noqa: PT018
        task = replace(task, max_length=config.max_length) if task.kind == "text" else task  # a built-in network has positions for them
        self._config, self._epochs, self._identity, self._state_file = config, config.epochs, identity, state_file
        rng = np.random.default_rng([config.seed, 7, 1])
        train_rows, held_out_rows = training_rows(task, config, rng)
        network = build(config.model, task, config.seed)
        assert isinstance(network, Saveable)
        self.network = network
        self.reader = _reader(task, config)
        self._inputs, self._labels = self._encode(task.train.take(train_rows))
        noisy = rng.random(len(train_rows)) < config.label_noise
        self._labels = torch.where(
            torch.from_numpy(noisy), torch.from_numpy(rng.integers(task.num_classes, size=len(train_rows))), self._labels
        )
        self._held_out = self._encode(task.train.take(held_out_rows))
        options = OptimizerOptions("adamw", config.lr, 0.01, 0.1, "linear")
        if config.learns_by_sgd:
            options = OptimizerOptions("sgd", config.lr, 5e-4, 0.1, "cosine")
        self._patience = config.epochs if config.learns_by_sgd else PATIENCE
        self._student = Student(network, options, pick_device("auto"), metric=task.metric_key)
        self._metric, self._history = task.metric, list[dict[str, float]]()
        self._best_weights: dict[str, torch.Tensor] = {}
        self._losses: list[torch.Tensor] = []  # of the mini-batches of the current epoch
        self._dropout: torch.Tensor | None = None  # state of the generator after them
        self._minutes, self._note = checkpoint_minutes, ""
        sweep(self._state_file.parent)
        if self._state_file.exists():
            self._resume()

    def run(self, progress: ProgressCallback) -> list[dict[str, float]]:
        """Train for the remaining epochs and return the losses of every epoch.

        Raises:
            InputError: the loss is no longer finite.
        """
        total, schedule = self._epochs * self._num_batches, SaveSchedule(self._minutes)
        if done := len(self._history) * self._num_batches + len(self._losses):
            self._note = f"resumed at update {done} of {total}"
        if self._note:
            progress(done, total, self._note)
        while len(self._history) < self._epochs and not self._stalled:
            with deferred_interrupts():
                message = self._run_epoch(len(self._history), progress, schedule)
            raise_if_interrupted()
            progress(len(self._history) * self._num_batches, total, message)
        progress(total, total, self._advice())
        self.network.load_state_dict(self._best_weights)
        self.network.to("cpu").eval()
        return self._history

    def _run_epoch(self, epoch: int, progress: ProgressCallback, schedule: SaveSchedule) -> str:
        """Train for the rest of an epoch, evaluate it, save the state, and return a line about it."""
        loss = self._train(epoch, progress, schedule)
        held_out_loss, held_out_metric = (float(values[0]) for values in self._student.evaluate(*self._held_out))
        if not np.isfinite([loss, held_out_loss]).all():
            raise InputError(f"teacher of {self._config.model!r}: the loss is no longer finite in epoch {epoch + 1}; give a lower lr")
        if held_out_loss < min((entry["held_out_loss"] for entry in self._history), default=float("inf")):
            self._best_weights = {name: tensor.detach().cpu().clone() for name, tensor in self.network.state_dict().items()}
        self._history.append({"epoch": epoch + 1, "train_loss": loss, "held_out_loss": held_out_loss, "held_out_metric": held_out_metric})
        self._save()
        line = (
            f"epoch {epoch + 1}/{self._epochs}: train loss {loss:.3f}, held-out loss {held_out_loss:.3f}, "
            f"{self._metric} {held_out_metric:.3f}"
        )
        if self._stalled or epoch + 1 == self._epochs:
            line += f"; epoch {self._best_epoch + 1} is kept" + (", no better since" if self._stalled else "")
        return line

    def _train(self, epoch: int, progress: ProgressCallback, schedule: SaveSchedule) -> float:
        """Train for the rest of an epoch and return the mean loss of the whole epoch."""
        student, config = self._student, self._config
        batches = self._batches(epoch)
        total = self._epochs * len(batches)
        with seeded(config.seed * 1009 + epoch):  # dropout draws from the global generator
            if self._dropout is not None:
                torch.set_rng_state(self._dropout)
            for number, rows in list(enumerate(batches))[len(self._losses) :]:
                done = epoch * len(batches) + number
                output = student.forward(take(self._inputs, rows, student.device))
                loss = cross_entropy(output.logits, self._labels[rows].to(student.device))
                student.step(loss, (done + 1) / (total + 1))
                self._losses.append(loss.detach())
                if number + 1 < len(batches):
                    progress(done + 1, total, "")
                    schedule.save_if_due(self._save)
        mean = float(torch.stack(self._losses).mean())
        self._losses, self._dropout = [], None
        return mean

    def _batches(self, epoch: int) -> list[np.ndarray]:
        """Return the rows of the mini-batches of an epoch."""
        config, lengths = self._config, text_lengths(self._inputs)
        if config.by_length and lengths is not None and len(lengths) >= config.batch_size:
            return np.split(length_order(config.seed, epoch, config.batch_size, lengths), self._num_batches)
        order = np.random.default_rng([config.seed, 11, epoch, 1]).permutation(len(self._labels))
        return np.array_split(order, self._num_batches)

    @property
    def _num_batches(self) -> int:
        return max(len(self._labels) // self._config.batch_size, 1)

    def _advice(self) -> str:
        """Return what to change if the kept network has not learned, or has had few updates; else an empty text."""
        accuracy, labels = self._history[self._best_epoch]["held_out_metric"], self._held_out[1]
        of_one_answer = float(labels.bincount().max()) / len(labels)
        if self._metric == "accuracy" and accuracy <= of_one_answer:
            return (
                f"it has not learned: held-out accuracy {accuracy:.3f}, and {of_one_answer:.3f} by always answering with the most frequent "
                "class; give a higher --lr, then more --epochs"
            )
        if (done := len(self._history) * self._num_batches) < FEW_UPDATES:
            return f"only {done} updates in all: with so few examples give more --epochs and a higher --lr"
        return ""

    @property
    def _best_epoch(self) -> int:
        return int(np.argmin([entry["held_out_loss"] for entry in self._history]))

    @property
    def _stalled(self) -> bool:
        return bool(self._history) and len(self._history) - 1 - self._best_epoch >= self._patience

    def _save(self) -> None:
        tensors = {**add_prefix(self._student.state(), "student"), **add_prefix(self._best_weights, "best")}
        if self._losses:
            tensors |= {"epoch.losses": torch.stack(self._losses), "epoch.dropout": torch.get_rng_state()}
        write_bytes(self._state_file, to_bytes(tensors, {"identity": self._identity, "history": self._history}))

    def _resume(self) -> None:
        try:
            tensors, state = from_bytes(self._state_file.read_bytes(), self._identity, str(self._state_file), "it cannot be used")
        except OtherRunError as error:
            folder = self._state_file.parent
            raise InputError(f"{folder}: begun by another command ({error}); delete it, or name another --out") from None
        except InputError as error:
            aside = self._state_file.with_suffix(".set-aside")
            self._state_file.replace(aside)
            self._note = f"{error}; it is now {aside.name}, and the teacher starts over"
            return
        self._student.load_state(with_prefix(tensors, "student"))
        self._best_weights, self._history, epoch = with_prefix(tensors, "best"), state["history"], with_prefix(tensors, "epoch")
        self._losses = list(epoch["losses"].to(self._student.device)) if epoch else []
        self._dropout = epoch.get("dropout")

    def _encode(self, split: Split) -> tuple[Inputs, torch.Tensor]:
        inputs = self.reader(split.inputs)
        return TrimmedInputs(inputs) if "attention_mask" in inputs else inputs, torch.from_numpy(split.labels)


def _reader(task: Task, config: FinetuneConfig) -> Reader:
    assert config.max_length is not None
    if not begins_as_checkpoint(config.model):
        return reader_to_save(task, config.max_length)
    return open_checkpoint(from_checkpoint.parse(config.model).name, task).reader(config.max_length)
