"""``heads(TEACHER)``: classifiers at every layer of one teacher, which are several teachers for one forward pass.

After Asadian and Salehi-Abari 2021 ("Distilling Knowledge via Intermediate Classifiers", arXiv 2103.00497), of which only the abstract and
the beginning of the introduction could be read: heads at several depths of a fixed teacher teach together with it. The form of a head and
its fit are a reading of ours. Early exits are older (BERxiT, Xin et al., EACL 2021; "Be Your Own Teacher", Zhang et al. 2019, arXiv
1905.08094).

The hidden state ``h_l`` of layer l (of a transformer, that of [CLS]) is classified by ``softmax(W_l h_l + b_l)``. ``layer-1`` to
``layer-L`` are such heads and ``output`` is the teacher itself, so a network with one hidden layer gives two teachers. A layer that is the
same for every example, as the embedding of [CLS] is, has no head.

Deviations from the early exits: the teacher is trained before and is not changed; a head is linear, where "Be Your Own Teacher" puts a
bottleneck before it; the heads do not teach each other.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from kd_env.errors import InputError
from kd_env.paths import cache_dir, locked
from kd_env.randomness import reproducible
from kd_env.serialization import read_tensors, write_tensors
from kd_env.tasks import Task
from kd_env.teachers.checkpoint import CheckpointTeacher
from kd_env.teachers.logistic_regression import fit_classifier
from kd_env.teachers.teacher import Pool, Teacher, classifiers
from kd_env.types import ModelOutput

FORMAT = 1
BATCH = 256
"""Examples of one forward pass of the teacher."""
MAX_EXAMPLES = 20_000
"""Labelled training examples that heads are fitted to; if there are more, evenly spaced ones."""
CONSTANT = 1e-4
"""A layer is constant if its values spread less than this part of their size over the examples: its last bits depend on the batch."""


class CachedTeacher:
    """The teacher below the heads. It keeps its last output, so that all heads of a batch cost one forward pass."""

    def __init__(self, teacher: Teacher) -> None:
        """Wrap ``teacher``."""
        self.teacher = teacher
        self._inputs: np.ndarray | None = None
        self._output: ModelOutput | None = None

    def __call__(self, inputs: np.ndarray) -> ModelOutput:
        """Return the teacher's output with its layers.

        Raises:
            InputError: the teacher has no layers.
        """
        if self._output is None or self._inputs is None or not np.array_equal(self._inputs, inputs):
            teacher = self.teacher
            output = teacher.forward(inputs, frozenset({"layers"})) if isinstance(teacher, CheckpointTeacher) else teacher(inputs)
            if output.layers is None:
                raise InputError(f"heads({teacher.name}): that teacher has no layers; name a network, or a checkpoint without folds")
            self._inputs, self._output = inputs.copy(), output
        return self._output


@dataclass(frozen=True, eq=False)
class HeadTeacher:
    """One head as a teacher.

    Attributes:
        name: ``layer-1`` and so on, or ``output``.
        body: the teacher that has the head.
        layer: which of the body's layers it reads; ``None`` for the body's own output.
        weight: weights of its classifier, ``[C, D]``.
        bias: biases of its classifier, ``[C]``.
    """

    name: str
    body: CachedTeacher
    layer: int | None = None
    weight: Tensor | None = None
    bias: Tensor | None = None

    def fingerprint(self) -> str:
        """Return the hash of the body and of the head."""
        digest = hashlib.sha256(f"{self.name}:{self.layer}:{self.body.teacher.fingerprint()}".encode())
        for tensor in (self.weight, self.bias):
            digest.update(b"" if tensor is None else tensor.numpy().tobytes())
        return digest.hexdigest()

    def __call__(self, inputs: np.ndarray) -> ModelOutput:
        """Return its output; its features are the layer it reads, its layers are those up to that one."""
        output = self.body(inputs)
        assert output.layers is not None
        if self.layer is None or self.weight is None or self.bias is None:
            return output._replace(attention=None)
        features = output.layers[:, self.layer]
        return ModelOutput(features @ self.weight.T + self.bias, features, output.layers[:, : self.layer + 1])

    def head(self) -> tuple[Tensor, Tensor]:
        """Return weights ``[C, D]`` and biases ``[C]`` of its classifier."""
        if self.weight is not None and self.bias is not None:
            return self.weight, self.bias
        return classifiers(Pool(self.name, (self.body.teacher,)))[0]


def parse(text: str) -> str | None:
    """Return ``TEACHER`` of ``heads(TEACHER)``, and ``None`` for any other text."""
    match = re.fullmatch(r"heads\((.*)\)", text.strip())
    return match[1].strip() if match and "," not in match[1] else None


def heads_of(teachers: Sequence[Teacher], task: Task) -> tuple[HeadTeacher, ...]:
    """Return the heads of the only teacher in ``teachers``, from the first layer to the output. They are fitted once and cached.

    Raises:
        InputError: there are several teachers, or the teacher has no layers.
    """
    if len(teachers) != 1:
        names = ", ".join(teacher.name for teacher in teachers)
        raise InputError(
            f"heads(...) takes one teacher, and here are {len(teachers)} ({names}); name one, as heads(POOL/{teachers[0].name})"
        )
    body = CachedTeacher(teachers[0])
    fitted = _load_or_fit(body, task)
    numbered = enumerate(zip(fitted["layers"].tolist(), fitted["weight"], fitted["bias"], strict=True), start=1)
    heads = [HeadTeacher(f"layer-{number}", body, layer, weight, bias) for number, (layer, weight, bias) in numbered]
    return *heads, HeadTeacher("output", body)


def group_by_network(teachers: Sequence[Teacher]) -> list[list[int]]:
    """Return the indices of the teachers, grouped by the network whose forward pass they share."""
    groups: dict[int, list[int]] = {}
    for k, teacher in enumerate(teachers):
        groups.setdefault(id(teacher.body if isinstance(teacher, HeadTeacher) else teacher), []).append(k)
    return list(groups.values())


def _load_or_fit(body: CachedTeacher, task: Task) -> dict[str, Tensor]:
    key = hashlib.sha256(f"{FORMAT}|{body.teacher.fingerprint()}|{task.fingerprint}".encode()).hexdigest()[:16]
    path = cache_dir() / "teachers" / f"heads-{key}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path):
        saved = read_tensors(path)
        if saved is not None and {"layers", "weight", "bias"} <= set(saved):
            return saved
        fitted = _fit(body, task)
        write_tensors(path, fitted)
    return fitted


def _fit(body: CachedTeacher, task: Task) -> dict[str, Tensor]:
    """Fit the heads to labelled training examples.

    Returns:
        ``layers [H]``, the indices of the layers that have a head, ``weight [H, C, D]`` and ``bias [H, C]``.
    """
    rows = task.train.labelled
    rows = rows[np.linspace(0, len(rows) - 1, min(len(rows), MAX_EXAMPLES)).round().astype(np.int64)]
    split = task.train.take(rows)
    with reproducible():
        batches = [body(split.inputs[start : start + BATCH]).layers for start in range(0, len(split), BATCH)]
        layers = torch.cat([batch for batch in batches if batch is not None]).double()  # [N, L, D]
        spread, size = layers.std(0, correction=0).amax(1), layers.abs().mean((0, 2))
        varying = (spread > CONSTANT * size).nonzero()[:, 0]
        if len(varying) == 0:
            raise InputError(f"heads({body.teacher.name}): its layers are the same for every training example; give a trained teacher")
        labels = torch.from_numpy(split.labels)
        fitted = [fit_classifier(layers[:, layer], labels, task.num_classes) for layer in varying]
    return {
        "layers": varying,
        "weight": torch.stack([weight for weight, _ in fitted]).float(),
        "bias": torch.stack([bias for _, bias in fitted]).float(),
    }
