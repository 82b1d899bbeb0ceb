"""Run the teachers' networks in the loop, on inputs that no bank holds. In: a pool, raw inputs. Out: the outputs of each teacher."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from kd_env.errors import InputError
from kd_env.models.any_classifier import AnyClassifier
from kd_env.models.encode import Reader, encode, take
from kd_env.teachers.checkpoint import CheckpointTeacher
from kd_env.teachers.classes import ClassMap
from kd_env.teachers.teacher import NetworkTeacher, Pool, Teacher
from kd_env.types import ModelOutput


@dataclass(frozen=True, eq=False)
class LiveTeacher:
    """The network of a teacher, with the way in and the way out.

    Attributes:
        name: name of the teacher.
        network: network; it stays in evaluation mode.
        read: function that encodes raw inputs for the network.
        scale: factor of the logits.
        classes: how the network's classes become the task's; ``None`` if they are the task's.
    """

    name: str
    network: nn.Module
    read: Reader
    scale: float = 1.0
    classes: ClassMap | None = None

    @classmethod
    def of(cls, teacher: Teacher, device: torch.device) -> LiveTeacher:
        """Return the network of a teacher; a built-in one is copied to ``device``, a checkpoint's stays where it is.

        Raises:
            InputError: the teacher has no network that can be run here.
        """
        if isinstance(teacher, NetworkTeacher):
            network = teacher.network if device.type == "cpu" else copy.deepcopy(teacher.network).to(device)
            return cls(teacher.name, network, partial(encode, teacher.task), teacher.logit_scale)
        if isinstance(teacher, CheckpointTeacher):
            return cls(teacher.name, teacher.network, teacher.read, classes=teacher.class_map)
        raise InputError(
            f"teacher_answers='live': teacher {teacher.name!r} is a {type(teacher).__name__}; only built-in networks and checkpoints "
            "answer live; use such teachers, or answers from the bank: leave out teacher_answers, and policies that set it, such as ikd"
        )

    def copied(self, device: torch.device, dtype: torch.dtype) -> LiveTeacher:
        """Return the teacher with its own copy of the network, which can learn."""
        return replace(self, network=copy.deepcopy(self.network).to(device, dtype).requires_grad_())

    def __call__(self, inputs: np.ndarray, extra_outputs: frozenset[str] = frozenset()) -> ModelOutput:
        """Run the network in evaluation mode on raw inputs ``[B, ...]``, differentiable; outputs are on the network's device."""
        self.network.eval()
        parameter, encoded = next(self.network.parameters()), self.read(inputs)
        groups = [torch.arange(len(inputs))]
        if isinstance(self.network, AnyClassifier) and "attention_mask" in encoded:  # its batches must have no padding
            lengths = encoded["attention_mask"].sum(1)
            groups = [(lengths == length).nonzero()[:, 0] for length in sorted(set(lengths.tolist()))]
        outputs = [self._run(encoded, rows, parameter, extra_outputs) for rows in groups]
        output = outputs[0] if len(outputs) == 1 else _joined(outputs, torch.cat(groups).argsort())
        logits = output.logits if self.classes is None else self.classes.logits(output.logits)
        return output._replace(logits=logits * self.scale)

    def _run(self, encoded: dict[str, Tensor], rows: Tensor, like: Tensor, extra_outputs: frozenset[str]) -> ModelOutput:
        inputs = {name: values.to(like.dtype) if values.is_floating_point() else values for name, values in encoded.items()}
        kept = type(encoded)(inputs)  # texts are cut to the longest of them
        output: ModelOutput = self.network(extra_outputs=extra_outputs, **take(kept, rows, like.device))
        return output


@dataclass(frozen=True, eq=False)
class LiveTeachers:
    """The networks of K teachers.

    Attributes:
        teachers: the teachers, in the order of the pool.
    """

    teachers: tuple[LiveTeacher, ...]

    @classmethod
    def of(cls, pool: Pool, device: torch.device) -> LiveTeachers:
        """Return the networks of a pool.

        Raises:
            InputError: a teacher has no network, or the teachers change during a run.
        """
        if pool.drift is not None:
            raise InputError(f"teacher_answers='live': the teachers of pool {pool.name!r} change during a run; use teacher_answers=bank")
        return cls(tuple(LiveTeacher.of(teacher, device) for teacher in pool.teachers))

    def copied(self, device: torch.device, dtype: torch.dtype) -> LiveTeachers:
        """Return teachers with networks of their own, which can learn."""
        return LiveTeachers(tuple(teacher.copied(device, dtype) for teacher in self.teachers))

    def __call__(self, inputs: np.ndarray, extra_outputs: frozenset[str] = frozenset()) -> list[ModelOutput]:
        """Return the outputs of each teacher for raw inputs ``[B, ...]``, differentiable."""
        return [teacher(inputs, extra_outputs) for teacher in self.teachers]


def _joined(outputs: list[ModelOutput], order: Tensor) -> ModelOutput:
    def joined(parts: list[Tensor | None]) -> Tensor | None:
        present = [part for part in parts if part is not None]
        return torch.cat(present)[order] if present else None

    logits, features = (torch.cat(parts)[order] for parts in zip(*((output.logits, output.features) for output in outputs), strict=True))
    return ModelOutput(logits, features, joined([output.layers for output in outputs]))  # images come in one batch, so there are no maps
