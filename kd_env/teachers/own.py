"""Teachers of your own without a class for them: a ``torch.nn.Module`` or any callable, and lists of teachers where a pool is asked for."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from kd_env import spec
from kd_env.errors import InputError
from kd_env.models import in_memory
from kd_env.models.encode import encode
from kd_env.tasks import Task
from kd_env.teachers.checkpoint import CheckpointTeacher
from kd_env.teachers.teacher import Pool, Teacher
from kd_env.types import ModelOutput

PROBES = 64
"""Training examples whose answers identify a teacher that cannot say what it is."""
MIN_PROBABILITY = 1e-7
ROUNDING = 0.02
"""Largest difference from 1 of a sum of probabilities, which bfloat16 rounds to 8 bits."""


def as_pool(name: str, teachers: object, task: Task) -> Pool:
    """Return a pool of ``teachers``: a pool, a teacher, or a list of teachers, modules and callables.

    A Transformers model, its pipeline, or the pair of it and its tokenizer is a teacher with its own tokenizer.

    Raises:
        InputError: one of them can be no teacher.
    """
    if isinstance(teachers, Pool):
        return teachers
    items = list(teachers) if isinstance(teachers, list | tuple) and not in_memory.is_model(teachers) else [teachers]
    named: list[Teacher] = []
    for position, item in enumerate(items):
        if not isinstance(item, Teacher) and in_memory.is_model(item):
            model = in_memory.name_of(item)
            unique = f"{model}-{position + 1}" if model in [other.name for other in named] else model
            named.append(CheckpointTeacher(str(in_memory.save_to_cache(item)), task, unique))
            continue
        teacher = item if isinstance(item, Teacher) else _own_teacher(item, position, task)
        if isinstance(teacher, OwnTeacher) and teacher.name in [other.name for other in named]:
            teacher = OwnTeacher(f"{teacher.name}-{position + 1}", teacher.function, task)
        named.append(teacher)
    return Pool(name, tuple(named))


@dataclass(frozen=True, eq=False)
class OwnTeacher:
    """A function as a teacher.

    It is called with raw inputs as the task holds them; a module is called with encoded ones, and put into evaluation mode. It returns
    logits ``[B, C]``, ``(logits, features)``, or a mapping or object with ``logits``; probabilities become their logarithms. Features are
    the logits unless it gives some.

    Attributes:
        name: of the teacher.
        function: the function or module.
        task: the task whose inputs it reads.
    """

    name: str
    function: Callable[..., Any]
    task: Task

    def fingerprint(self) -> str:
        """Return the hash of its name and of its answers to some training examples, and of a module's weights."""
        digest = hashlib.sha256(f"own:{self.name}".encode())
        if isinstance(self.function, nn.Module):
            for key, tensor in self.function.state_dict().items():
                digest.update(key.encode() + tensor.detach().float().cpu().numpy().tobytes())
        digest.update(self._probe.logits.numpy().tobytes())
        return digest.hexdigest()

    def __call__(self, inputs: np.ndarray) -> ModelOutput:
        """Return its outputs as float32 on the CPU.

        Raises:
            InputError: the function fails, or returns something else.
        """
        output = self._outputs(inputs)
        return output._replace(logits=output.logits.clamp_min(MIN_PROBABILITY).log()) if self._gives_probabilities else output

    @cached_property
    def _probe(self) -> ModelOutput:
        size = len(self.task.train)
        return self._outputs(self.task.train.inputs[np.linspace(0, size - 1, min(size, PROBES)).round().astype(np.int64)])

    @cached_property
    def _gives_probabilities(self) -> bool:
        answers = self._probe.logits
        return bool(((answers >= 0) & (answers <= 1)).all()) and bool(((answers.sum(1) - 1).abs() < ROUNDING).all())

    @property
    def notes(self) -> tuple[str, ...]:
        """What was assumed about its outputs."""
        return ("its outputs are probabilities, so their logarithms are its logits",) if self._gives_probabilities else ()

    @torch.no_grad()
    def _outputs(self, inputs: np.ndarray) -> ModelOutput:
        call = self._call_module if isinstance(self.function, nn.Module) else self.function
        returned = spec.call_plugin(f"teacher {self.name!r}", call, {}, inputs)
        output = self._named(returned)
        if output.logits.shape != (len(inputs), self.task.num_classes):
            raise InputError(
                f"teacher {self.name!r}: logits of {len(inputs)} examples have the shape {list(output.logits.shape)}, expected "
                f"[{len(inputs)}, {self.task.num_classes}]: one for each class of task {self.task.name!r}"
            )
        return output

    def _call_module(self, inputs: np.ndarray) -> Any:
        module = self.function
        assert isinstance(module, nn.Module)
        module.eval()
        parameter = next(iter(module.parameters()), None)
        device = torch.device("cpu") if parameter is None else parameter.device
        encoded = {name: tensor.to(device) for name, tensor in encode(self.task, inputs).items()}
        try:
            inspect.signature(module.forward).bind(**encoded)
        except TypeError:  # it does not take them by name
            return module(next(iter(encoded.values())))
        return module(**encoded)

    def _named(self, returned: Any) -> ModelOutput:
        if isinstance(returned, ModelOutput):
            return returned.to(torch.float32).map(Tensor.cpu)
        if isinstance(returned, Mapping) and "logits" in returned:
            values = [returned["logits"], returned.get("features")]
        elif isinstance(returned, tuple) and len(returned) == 2:
            values = list(returned)
        else:
            values = [getattr(returned, "logits", returned), None]
        tensors = [None if value is None else self._tensor(value) for value in values]
        logits, features = tensors
        if logits is None:
            raise self._refusal(returned)
        return ModelOutput(logits, logits if features is None else features)

    def _tensor(self, value: Any) -> Tensor:
        try:
            tensor = torch.as_tensor(value).detach()
        except (TypeError, ValueError, RuntimeError):
            raise self._refusal(value) from None
        if tensor.is_complex():
            raise self._refusal(tensor)
        return tensor.float().cpu()

    def _refusal(self, value: Any) -> InputError:
        kind = f"{value.dtype} numbers" if isinstance(value, Tensor) else type(value).__name__
        return InputError(f"teacher {self.name!r} returned {kind}; return logits [B, C], (logits, features), or a mapping with logits")


def _own_teacher(item: object, position: int, task: Task) -> OwnTeacher:
    if not callable(item) or isinstance(item, type):
        raise InputError(
            f"teachers[{position}]: a {type(item).__name__} is not a teacher; give a callable from inputs to logits, a torch.nn.Module, or "
            "an object with name, fingerprint() and a call"
        )
    name = getattr(item, "__name__", type(item).__name__)
    return OwnTeacher("function" if name == "<lambda>" else name, item, task)
