"""``heads(TEACHER)``: classifiers at every depth of one teacher, several teachers for one forward pass. In: a teacher. Out: teachers.

As early-exit networks have them (BERxiT, Xin et al., EACL 2021; "Be Your Own Teacher", Zhang et al. 2019, arXiv 1905.08094): the hidden
state ``h_l`` of layer l (a transformer's [CLS]) is classified by ``softmax(W_l h_l + b_l)``. ``layer-1`` to ``layer-L`` are such heads and
``output`` is the teacher itself, so that a network of one hidden layer makes two. A layer that is the same for every example, as the
embedding of [CLS] is, has none.

Deviations: the teacher is finished and stays as it is, where both papers train the body together with its exits; a head is linear, where
"Be Your Own Teacher" puts a bottleneck before it; the heads do not teach each other.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from filelock import FileLock
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from kd_env.errors import InputError
from kd_env.paths import cache_dir
from kd_env.randomness import one_thread
from kd_env.tasks import Task
from kd_env.teachers.checkpoint import CheckpointTeacher
from kd_env.teachers.linear import classifier
from kd_env.teachers.teacher import Pool, Teacher, classifiers
from kd_env.types import ModelOutput

FORMAT = 1
BATCH, MOST = 256, 20_000
"""Examples asked at once; labelled training examples that heads are fitted to, at most: of more, evenly spaced ones."""
SAME = 1e-4
"""A layer whose values spread less than this part of their size over the examples is the same for all: its last bits follow the batch."""


class Trunk:
    """The teacher below the heads; it remembers its last answer, so that all heads of a batch cost one forward pass."""

    def __init__(self, teacher: Teacher) -> None:
        """Take the teacher."""
        self.teacher = teacher
        self._asked: np.ndarray | None = None
        self._said: ModelOutput | None = None

    def __call__(self, inputs: np.ndarray) -> ModelOutput:
        """What the teacher says, with its layers.

        Raises:
            InputError: it shows no layers.
        """
        if self._said is None or self._asked is None or not np.array_equal(self._asked, inputs):
            teacher = self.teacher
            said = teacher.say(inputs, frozenset({"layers"})) if isinstance(teacher, CheckpointTeacher) else teacher(inputs)
            if said.layers is None:
                raise InputError(f"heads({teacher.name}): that teacher shows no layers; name a network, or a checkpoint that has no folds")
            self._asked, self._said = inputs.copy(), said
        return self._said


@dataclass(frozen=True, eq=False)
class Head:
    """One of the teachers.

    Attributes:
        layer: which of the trunk's layers it reads; ``None`` for the teacher's own output.
        weight, bias: of its classifier, ``[C, D]`` and ``[C]``.
    """

    name: str
    trunk: Trunk
    layer: int | None = None
    weight: Tensor | None = None
    bias: Tensor | None = None

    def fingerprint(self) -> str:
        """Hash of the teacher and of the head."""
        digest = hashlib.sha256(f"{self.name}:{self.layer}:{self.trunk.teacher.fingerprint()}".encode())
        for tensor in (self.weight, self.bias):
            digest.update(b"" if tensor is None else tensor.numpy().tobytes())
        return digest.hexdigest()

    def __call__(self, inputs: np.ndarray) -> ModelOutput:
        """Speak; its features are the layer it reads, its layers those up to there."""
        said = self.trunk(inputs)
        assert said.layers is not None
        if self.layer is None or self.weight is None or self.bias is None:
            return said._replace(attention=None)
        features = said.layers[:, self.layer]
        return ModelOutput(features @ self.weight.T + self.bias, features, said.layers[:, : self.layer + 1])

    def head(self) -> tuple[Tensor, Tensor]:
        """Its classifier."""
        if self.weight is not None and self.bias is not None:
            return self.weight, self.bias
        return classifiers(Pool(self.name, (self.trunk.teacher,)))[0]


def inner(text: str) -> str | None:
    """``TEACHER`` of ``heads(TEACHER)``; ``None`` of any other text."""
    found = re.fullmatch(r"heads\((.*)\)", text.strip())
    return found[1].strip() if found and "," not in found[1] else None


def heads_of(teachers: Sequence[Teacher], task: Task) -> tuple[Head, ...]:
    """The heads of the one teacher in ``teachers``, the shallowest first; fitted once and kept in the cache.

    Raises:
        InputError: there are several teachers, or the one shows no layers.
    """
    if len(teachers) != 1:
        names = ", ".join(one.name for one in teachers)
        raise InputError(
            f"heads(...) are those of one teacher, and here are {len(teachers)} ({names}); name one, as heads(POOL/{teachers[0].name})"
        )
    trunk = Trunk(teachers[0])
    fitted = _cached(trunk, task)
    numbered = enumerate(zip(fitted["layers"].tolist(), fitted["weight"], fitted["bias"], strict=True), start=1)
    return *(Head(f"layer-{number}", trunk, *one) for number, one in numbered), Head("output", trunk)


def sharing(teachers: Sequence[Teacher]) -> list[list[int]]:
    """The teachers' numbers, those together that one forward pass serves."""
    together: dict[int, list[int]] = {}
    for k, teacher in enumerate(teachers):
        together.setdefault(id(teacher.trunk if isinstance(teacher, Head) else teacher), []).append(k)
    return list(together.values())


def _cached(trunk: Trunk, task: Task) -> dict[str, Tensor]:
    key = hashlib.sha256(f"{FORMAT}|{trunk.teacher.fingerprint()}|{task.fingerprint}".encode()).hexdigest()[:16]
    path = cache_dir() / "teachers" / f"heads-{key}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"):
        try:
            found = load_file(path)
            if {"layers", "weight", "bias"} <= set(found):
                return found
        except (FileNotFoundError, SafetensorError):  # not there yet, or damaged: fit them (again)
            pass
        made = _fitted(trunk, task)
        partial = path.with_suffix(".partial")
        save_file(made, partial)
        partial.replace(path)
    return made


def _fitted(trunk: Trunk, task: Task) -> dict[str, Tensor]:
    """``layers [H]``, the numbers of those that have a head, ``weight [H, C, D]`` and ``bias [H, C]``, from labelled training examples."""
    rows = task.train.labelled
    rows = rows[np.linspace(0, len(rows) - 1, min(len(rows), MOST)).round().astype(np.int64)]
    split = task.train.take(rows)
    with one_thread():
        said = [trunk(split.inputs[start : start + BATCH]).layers for start in range(0, len(split), BATCH)]
        layers = torch.cat([one for one in said if one is not None]).double()  # [N, L, D]
        spread, size = layers.std(0, correction=0).amax(1), layers.abs().mean((0, 2))
        chosen = (spread > SAME * size).nonzero()[:, 0]
        if len(chosen) == 0:
            raise InputError(f"heads({trunk.teacher.name}): its layers say the same of every training example; give a trained teacher")
        labels = torch.from_numpy(split.labels)
        found = [classifier(layers[:, layer], labels, task.num_classes) for layer in chosen]
    return {
        "layers": chosen,
        "weight": torch.stack([weight for weight, _ in found]).float(),
        "bias": torch.stack([bias for _, bias in found]).float(),
    }
