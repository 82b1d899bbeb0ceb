"""Fine-tune a teacher on a task's train split, or on some of its groups. In: a task, a config. Out: a checkpoint.

It stops early on a slice of train; reward, validation and test are not touched. Each epoch is kept beside the folder to be, so that the
same call carries on where it was stopped and, on CPU, ends in the same weights; the folder is moved in whole.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from kd_env.errors import InputError
from kd_env.models import from_checkpoint
from kd_env.models.device import pick_device
from kd_env.models.encode import Reader, TrimmedInputs, take
from kd_env.models.encoder import Encoder
from kd_env.models.networks import begins_as_checkpoint, build
from kd_env.models.pretrained import open_checkpoint
from kd_env.models.saving import reader_to_save, save
from kd_env.randomness import one_thread, seeded
from kd_env.serialization import from_bytes, part, to_bytes
from kd_env.student.optimizer import OptimizerOptions
from kd_env.student.student import Student
from kd_env.tasks import Split, Task
from kd_env.teachers.checkpoint import content
from kd_env.teachers.finetune_config import FinetuneConfig, fold_of
from kd_env.types import Inputs

HELD_OUT, LEAST, MOST = 0.1, 16, 1000
"""Part of the rows that decides when to stop; at least and at most so many."""

PATIENCE = 2
"""Epochs without a lower held-out loss after which it stops."""

FEW_UPDATES = 100
"""With fewer than this a new head has hardly learned."""

Report = Callable[[str, int, int, str], None]
"""Called with the teacher's name, the updates done and all of them, and at the end of an epoch what there is to say, else an empty text."""


def finetune(task: Task, config: FinetuneConfig, out: Path, report: Report | None = None) -> Path:
    """Make the teacher in the folder ``out``, which is there when this returns; one made by the same lesson is left as it is.

    Raises:
        InputError: the lesson cannot be used, or ``out`` holds something else.
    """
    task = task.development()
    config = config.filled(task)
    whole = {"task": task.name, "task_content": task.fingerprint, **asdict(config), "model_content": model_content(config)}
    identity: dict[str, Any] = json.loads(json.dumps(whole))  # as JSON has it, so that it can be compared with what is read back
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        _require_same(out, identity)
        return out
    partial = out.absolute().with_name(f".{out.absolute().name}.partial")
    course = _Course(task, config, partial, identity)
    partial.mkdir(parents=True, exist_ok=True)
    try:
        with one_thread():
            history = course.run(lambda done, total, said: report(out.name, done, total, said) if report else None)
    except InputError:  # to carry on would end in the same
        shutil.rmtree(partial)
        raise
    final = partial / "final"
    shutil.rmtree(final, ignore_errors=True)
    save(final, course.network, task, course.reader)
    (final / "teaching.json").write_text(json.dumps({**identity, "history": history}, indent=1))
    if out.exists():
        out.rmdir()
    final.replace(out)
    shutil.rmtree(partial)
    return out


def model_content(config: FinetuneConfig) -> str:
    """Hash of the files of the lesson's model; empty for a built-in architecture or a hub id."""
    return content(from_checkpoint.parse(config.model).name) if begins_as_checkpoint(config.model) else ""


class _Course:
    """The network and its optimizer, epoch by epoch."""

    def __init__(self, task: Task, config: FinetuneConfig, place: Path, identity: dict[str, Any]) -> None:
        assert config.epochs is not None and config.lr is not None  # noqa: PT018
        self._config, self._epochs, self._identity, self._state = config, config.epochs, identity, place / "state"
        rng = np.random.default_rng([config.seed, 7, 1])
        taught, held = _rows(task, config, rng)
        network = build(config.model, task, config.seed)
        assert isinstance(network, Encoder)
        self.network = network
        self.reader = _reader(task, config)
        self._inputs, self._labels = self._read(task.train.take(taught))
        noisy = rng.random(len(taught)) < config.label_noise
        self._labels = torch.where(
            torch.from_numpy(noisy), torch.from_numpy(rng.integers(task.num_classes, size=len(taught))), self._labels
        )
        self._held = self._read(task.train.take(held))
        options = OptimizerOptions("adamw", config.lr, 0.01, 0.1, "linear")
        self._student = Student(network, options, pick_device("auto"), metric=task.metric)
        self._metric, self._history = task.metric, list[dict[str, float]]()
        self._best: dict[str, torch.Tensor] = {}
        if self._state.exists():
            self._resume()

    def run(self, report: Callable[[int, int, str], None]) -> list[dict[str, float]]:
        """The epochs that are left; the network is then the one of the best epoch."""
        epochs = self._epochs
        total = epochs * self._batches()
        while len(self._history) < epochs and not self._stalled():
            epoch = len(self._history)
            loss = self._epoch(epoch, report)
            held_loss, held_metric = (float(one[0]) for one in self._student.evaluate(*self._held))
            if not np.isfinite([loss, held_loss]).all():
                raise InputError(f"teacher of {self._config.model!r}: the loss is no longer finite in epoch {epoch + 1}; give a lower lr")
            if held_loss < min((one["held_out_loss"] for one in self._history), default=float("inf")):
                self._best = {name: tensor.detach().cpu().clone() for name, tensor in self.network.state_dict().items()}
            said = {"epoch": epoch + 1, "train_loss": loss, "held_out_loss": held_loss, "held_out_metric": held_metric}
            self._history.append(said)
            self._keep()
            text = f"epoch {epoch + 1}/{epochs}: train loss {loss:.3f}, held-out loss {held_loss:.3f}, {self._metric} {held_metric:.3f}"
            if self._stalled() or epoch + 1 == epochs:
                text += f"; epoch {self._best_epoch() + 1} is kept" + (", no better since" if self._stalled() else "")
            report((epoch + 1) * self._batches(), total, text)
        if total < FEW_UPDATES:
            report(total, total, f"only {total} updates in all: with so few examples give more --epochs and a higher --lr")
        self.network.load_state_dict(self._best)
        self.network.to("cpu").eval()
        return self._history

    def _batches(self) -> int:
        return max(len(self._labels) // self._config.batch_size, 1)

    def _epoch(self, epoch: int, report: Callable[[int, int, str], None]) -> float:
        student, config = self._student, self._config
        order = np.random.default_rng([config.seed, 11, epoch, 1]).permutation(len(self._labels))
        batches = np.array_split(order, self._batches())
        total, losses = self._epochs * len(batches), []
        with seeded(config.seed * 1009 + epoch):  # dropout draws from the global generator
            for number, rows in enumerate(batches):
                done = epoch * len(batches) + number
                output = student.forward(take(self._inputs, rows, student.device))
                loss = cross_entropy(output.logits, self._labels[rows].to(student.device))
                student.step(loss, (done + 1) / (total + 1))
                losses.append(loss.detach())
                if number + 1 < len(batches):
                    report(done + 1, total, "")
        return float(torch.stack(losses).mean())

    def _best_epoch(self) -> int:
        return int(np.argmin([one["held_out_loss"] for one in self._history]))

    def _stalled(self) -> bool:
        return bool(self._history) and len(self._history) - 1 - self._best_epoch() >= PATIENCE

    def _keep(self) -> None:
        tensors = {f"student.{name}": tensor for name, tensor in self._student.state().items()}
        tensors |= {f"best.{name}": tensor for name, tensor in self._best.items()}
        fresh = self._state.with_suffix(".new")
        fresh.write_bytes(to_bytes(tensors, {"identity": self._identity, "history": self._history}))
        fresh.replace(self._state)

    def _resume(self) -> None:
        try:
            tensors, state = from_bytes(self._state.read_bytes(), self._identity)
        except InputError as error:
            raise InputError(f"{self._state.parent}: begun by another command ({error}); delete it, or name another --out") from None
        self._student.load_state(part(tensors, "student"))
        self._best, self._history = part(tensors, "best"), state["history"]

    def _read(self, split: Split) -> tuple[Inputs, torch.Tensor]:
        inputs = self.reader(split.inputs)
        return TrimmedInputs(inputs) if "attention_mask" in inputs else inputs, torch.from_numpy(split.labels)


def _reader(task: Task, config: FinetuneConfig) -> Reader:
    if not begins_as_checkpoint(config.model):
        return reader_to_save(task, config.max_length)
    return open_checkpoint(from_checkpoint.parse(config.model).name, task).reader(config.max_length)


def _rows(task: Task, config: FinetuneConfig, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Rows of train that are taught, and those held out from them."""
    rows = task.train.labelled
    if config.groups:
        assert task.train.groups is not None
        rows = rows[np.isin(task.train.groups[rows], [task.group_names.index(name) for name in config.groups])]
    if config.fold >= 0:
        rows = rows[[fold_of(task.train.inputs[row], config.folds) != config.fold for row in rows]]
    if config.fraction < 1.0:
        rows = np.sort(rng.permutation(rows)[: round(config.fraction * len(rows))])
    count = min(max(round(HELD_OUT * len(rows)), LEAST), MOST)
    if len(rows) < 2 * count:
        raise InputError(
            f"teacher of {config.model!r}: {len(rows)} examples to learn from are too few; "
            "give it more groups, a larger fraction, or fewer folds"
        )
    shuffled = rng.permutation(rows)
    return np.sort(shuffled[count:]), np.sort(shuffled[:count])


def _require_same(out: Path, identity: dict[str, Any]) -> None:
    path = out / "teaching.json"
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        raise InputError(f"{out} holds something that kd-env teach did not write; name a new folder") from None
    if differs := sorted(key for key in identity if found.get(key) != identity[key]):
        names = {"task_content": "data", "model_content": "model files"}  # of the same names
        raise InputError(
            f"{out} holds a teacher made with other {', '.join(names.get(key, key) for key in differs)}; name another folder or delete it"
        )
