"""Define what a task is: labelled examples in four splits, and the defaults for distilling on it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np

from kd_env import spec
from kd_env.errors import InputError
from kd_env.tasks.metrics import find, metric_key
from kd_env.tasks.split_arrays import require_arrays
from kd_env.tasks.wordpiece import MAX_TOKENS, WordPiece

SPLITS = ("train", "reward", "validation", "test")


@dataclass(frozen=True)
class Split:
    """Examples of one split.

    Attributes:
        inputs: float32 images ``[N, channels, height, width]``, or texts, an object array ``[N]``, or ``[N, 2]`` of pairs.
        labels: int64 ``[N]``, in ``[0, C)``; -1 where unknown, see :attr:`Task.unlabelled`.
        groups: int64 ``[N]``, the domain of each example, or ``None``. Never shown to a policy; -1 for an unlabelled example without group.
        originals: int64 ``[N]``, number of the image of which an example is a stored view, or ``None`` without stored views.
    """

    inputs: np.ndarray
    labels: np.ndarray
    groups: np.ndarray | None = None
    originals: np.ndarray | None = None

    def __len__(self) -> int:
        """Return the number of examples, N."""
        return len(self.labels)

    @property
    def labelled(self) -> np.ndarray:
        """Rows whose label is known."""
        return np.flatnonzero(self.labels >= 0)

    def take(self, rows: np.ndarray) -> Split:
        """Return the examples at ``rows``, in that order."""
        groups, originals = (None if values is None else values[rows] for values in (self.groups, self.originals))
        return Split(self.inputs[rows], self.labels[rows], groups, originals)


@dataclass(frozen=True)
class Defaults:
    """What a task is distilled with unless the user says otherwise.

    Attributes:
        pool: name of the teacher pool.
        student: architecture, as ``mlp(width=24)``.
        updates: student updates, the budget.
        kd_weight: weight of distillation against the hard label, in [0, 1].
        temperature: of the response loss.
        optimizer: of the student, as ``adamw(lr=0.001)``.
    """

    pool: str
    student: str
    updates: int
    kd_weight: float
    temperature: float
    optimizer: str = "adam(lr=0.003)"

    def __new__(cls, *_arguments: object, **options: object) -> Defaults:
        """Refuse the former name of ``kd_weight``, which user-defined tasks may still use.

        Raises:
            InputError: ``strength`` is given.
        """
        if "strength" in options:
            raise InputError(f"Defaults(strength={options['strength']!r}): 'strength' is now called 'kd_weight'; use that name")
        return super().__new__(cls)


@dataclass(frozen=True)
class Task:
    """Four splits and what they mean.

    ``train`` teaches the student, ``reward`` pays the policy, ``validation`` chooses hyper-parameters, ``test`` is for the report alone:
    training code receives :meth:`development`, which has no test.

    Attributes:
        metric: a name of :data:`~kd_env.tasks.metrics.METRICS`, or ``f1(class=NAME)``.
        tokenizer: makes the tokenizer of the built-in text students; for texts only.
        notes: what a user should know of how the splits came about, one sentence each.
        unlabelled: train also holds examples of unknown label, -1, which only teachers teach. Teachers are trained on the others.
        max_length: tokens of a text that built-in networks read, and students that start from a checkpoint; the rest is cut off.
    """

    name: str
    kind: Literal["image", "text"]
    train: Split
    reward: Split
    validation: Split
    test: Split | None
    class_names: tuple[str, ...]
    defaults: Defaults
    group_names: tuple[str, ...] = ()
    metric: str = "accuracy"
    tokenizer: Callable[[], Any] | None = None
    notes: tuple[str, ...] = ()
    unlabelled: bool = False
    max_length: int = MAX_TOKENS

    def __post_init__(self) -> None:
        """Refuse an unknown metric, fewer than two classes, and splits that nothing can be learned from."""
        if self.num_classes < 2 or len(set(self.class_names)) < self.num_classes:
            raise InputError(f"task {self.name!r}: class_names={list(self.class_names)!r}; give at least two different names")
        _ = self.metric_key
        spec.numbers(f"task {self.name}", least=3, whole=True, max_length=self.max_length)
        for name in SPLITS:
            split: Split | None = getattr(self, name)
            if split is None and name == "test":
                continue
            if split is not None:
                require_arrays(f"task {self.name!r}, split {name!r}", split, self.kind, self.train)
            if split is None or len(split) == 0:
                raise InputError(f"task {self.name!r}: split {name!r} is empty; every split needs at least one example")
            self._check(name, split)

    def _check(self, name: str, split: Split) -> None:
        place = f"task {self.name!r}, split {name!r}"
        if len(split.inputs) != len(split.labels):
            raise InputError(f"{place}: {len(split.inputs)} inputs but {len(split.labels)} labels")
        may_be_unknown = self.unlabelled and name == "train"
        if split.labels.min() < (-1 if may_be_unknown else 0) or split.labels.max() >= self.num_classes:
            also = ", or be -1 where unknown" if may_be_unknown else ""
            raise InputError(f"{place}: labels must lie in 0..{self.num_classes - 1}{also}")
        if may_be_unknown and len(split.labelled) == 0:
            raise InputError(f"{place}: no example has a label; teachers are trained on those that have one")
        if self.kind == "image" and not np.isfinite(split.inputs).all():
            raise InputError(f"{place}: images hold NaN or infinite values")

    @property
    def num_classes(self) -> int:
        """Number of classes C."""
        return len(self.class_names)

    @property
    def metric_key(self) -> str:
        """The metric as :func:`kd_env.tasks.metrics.find` reads it: a class in it is a number."""
        return metric_key(self.metric, self.class_names, f"task {self.name!r}")

    def score(self, predictions: np.ndarray, labels: np.ndarray) -> float:
        """Return the task's metric of predicted classes, int64 ``[N]``."""
        return find(self.metric_key)(predictions, labels, self.num_classes)

    @cached_property
    def channel_statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation of each channel of the images of train; the deviation of a constant channel is 1."""
        images, moments = self.train.inputs, np.zeros((2, self.train.inputs.shape[1]))
        for start in range(0, len(images), 1000):  # in parts, since float64 needs twice the memory
            part = images[start : start + 1000].astype(np.float64)
            moments += [part.sum((0, 2, 3)), np.square(part).sum((0, 2, 3))]
        mean, square = moments / (images.size // images.shape[1])
        deviation = np.sqrt(np.maximum(square - mean**2, 0.0))
        return tuple(mean.tolist()), tuple(np.where(deviation > 1e-6, deviation, 1.0).tolist())

    def development(self) -> Task:
        """Return the task without its test split: all that training may hold."""
        return replace(self, test=None)

    def shuffled(self) -> Task:
        """Return the task with the examples of train in an order of their own: policies see positions, which must not reveal labels."""
        return replace(self, train=self.train.take(np.random.default_rng(0).permutation(len(self.train))))

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the content of train, reward and validation: equal content, equal fingerprint."""
        digest = hashlib.sha256(f"{self.kind}:{self.class_names}".encode())
        for name in SPLITS[:3]:
            self._hash_split(name, digest)
        variant = self.tokenizer.variant if isinstance(self.tokenizer, WordPiece) else ""
        if variant or self.max_length != MAX_TOKENS:
            digest.update(f"|{variant}:{self.max_length}".encode())
        return digest.hexdigest()

    @cached_property
    def test_fingerprint(self) -> str:
        """Hash of the content of test, which banks and trials do not depend on; empty without test."""
        if self.test is None:
            return ""
        digest = hashlib.sha256()
        self._hash_split("test", digest)
        return digest.hexdigest()[:16]

    def _hash_split(self, name: str, digest: Any) -> None:
        split: Split = getattr(self, name)
        digest.update(f"|{name}:{len(split)}|".encode())
        digest.update(b"pairs|" if self.kind == "text" and split.inputs.ndim == 2 else b"")
        digest.update(split.inputs.tobytes() if self.kind == "image" else "\0".join(map(str, split.inputs.ravel())).encode())
        digest.update(split.labels.tobytes() + (b"" if split.groups is None else split.groups.tobytes()))


def task_name(name: str, options: Mapping[str, Any], defaults: Mapping[str, Any]) -> str:
    """Return ``name`` with the ``options`` that differ from ``defaults``, sorted: equal tasks have equal names."""
    return str(spec.Spec(name, {key: quoted(value) for key, value in options.items() if value != defaults[key]}))


def quoted(value: object) -> object:
    """Return the value of an option as a task's name holds it: a text that would be read as something else stands in quotes."""
    if not isinstance(value, str):
        return value
    whole = spec.split(value) == [value] and all(value.count(left) == value.count(right) for left, right in ("()", "[]", "{}"))
    return value if whole and spec.option(f"key={value}")[1] == value else repr(value)
