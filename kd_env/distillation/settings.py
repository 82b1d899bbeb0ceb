"""Define the keywords of a distillation: meaning, default and range.

In: keywords. Out: checked, frozen :class:`DistillationSettings`. :mod:`kd_env.envs.settings` has the keywords of rewards, actions and
observations.
"""

from __future__ import annotations

import typing
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from kd_env import spec
from kd_env.distillation.learning_options import LearningOptions
from kd_env.distillation.swap_schedule import parse_schedule
from kd_env.errors import InputError
from kd_env.knowledge.terms import Term
from kd_env.student.build import StudentConfig
from kd_env.student.optimizer import OptimizerOptions
from kd_env.tasks import Task
from kd_env.tasks.augmentation import Augmentation
from kd_env.types import TeacherShapes

MAX_INTEGER = 2**31
"""Largest whole number of a setting."""
MAX_TEMPERATURE = 1e9
"""Largest temperature; its square is a factor of the loss."""
RENAMED = {"strength": "kd_weight", "features": "observation", "companion": "auxiliary_module"}
"""New names of settings by their former names. A former name raises an error that gives the new one."""


@dataclass(frozen=True)
class DistillationSettings:
    """Settings of a distillation.

    Attributes:
        student: network of the student, such as ``mlp(width=24)``, ``PATH(layers=0;5)`` or ``module:Class``. Default: the task's.
        updates: budget of an episode: the number of student updates. Default: the task's.
        kd_weight: weight of distillation against the hard label, in [0, 1]; 1 is pure distillation. Default: the task's.
        temperature: temperature of the knowledge types that compare logits. Default: the task's.
        optimizer: optimizer of the student, such as ``adamw(lr=0.001,warmup=0.1,decay=linear)``. Default: the task's.
        batch_size: number of examples in one update, B.
        knowledge: knowledge types of the loss, such as ``response,layer(strength=50)``; ``kd-env list knowledge`` lists them.
        auxiliary_module: module with parameters that learn with the student, ``module:Class(options)``.
        num_students: number of students that learn at once, S; they do not affect each other, except through peer knowledge types.
        calibrate_teachers: whether to divide each teacher's logits by a temperature that is fitted on the labelled reward examples, see
            ``kd_env.distillation.calibration``.
        reward_ce: weight of an extra cross-entropy on a mini-batch of reward examples, for baselines that train on reward labels.
        teacher_answers: whether the teachers' outputs for a mini-batch are read from the ``bank``, or computed ``live`` by their networks.
        augmentation: random changes of the images of an update, such as ``crop(padding=4),flip,cutout(size=8)``; needs live teachers.
        teacher_learning: how live teachers go on learning, such as ``feedback(lr=0.0001)``, see ``kd_env.distillation.learning_options``;
            empty if they stay as they are.
        block_swap: how blocks of the student are replaced by a teacher's in training, such as ``review(start=0.9)``, see
            ``kd_env.distillation.swap_schedule``; empty for not at all.
        device: device of the students: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        precision: number format of the students: ``auto``, ``float32``, ``float64`` or ``bfloat16``.
    """

    student: str
    updates: int
    kd_weight: float
    temperature: float
    optimizer: str
    batch_size: int = 32
    knowledge: str = "response"
    auxiliary_module: str = ""
    num_students: int = 1
    calibrate_teachers: bool = False
    reward_ce: float = 0.0
    teacher_answers: Literal["bank", "live"] = "bank"
    augmentation: str = ""
    teacher_learning: str = ""
    block_swap: str = ""
    device: str = "auto"
    precision: Literal["auto", "float32", "float64", "bfloat16"] = "auto"

    def __post_init__(self) -> None:
        """Check the values against their ranges."""
        spec.numbers("", least=1, whole=True, updates=self.updates, batch_size=self.batch_size, num_students=self.num_students)
        spec.numbers("", least=0, reward_ce=self.reward_ce)
        spec.numbers("", least=0, most=1, kd_weight=self.kd_weight)
        spec.numbers("", above=0, most=MAX_TEMPERATURE, temperature=self.temperature)
        for name in ("augmentation", "teacher_learning"):
            if getattr(self, name) and self.teacher_answers == "bank":
                raise InputError(f"{name}={getattr(self, name)!r}: a bank holds fixed answers to stored inputs; add teacher_answers=live")
        Augmentation.of(self.augmentation)
        if self.block_swap:
            parse_schedule(self.block_swap)
            if self.num_students > 1 or self.teacher_learning:
                other = f"num_students={self.num_students}" if self.num_students > 1 else f"teacher_learning={self.teacher_learning!r}"
                raise InputError(f"block_swap={self.block_swap!r}: needs one student, and teachers that do not learn; leave {other} out")
        if self.teacher_learning:
            LearningOptions.of(self.teacher_learning)
            if self.num_students > 1:
                raise InputError(f"num_students={self.num_students}: teachers that learn have one student; use num_students=1")
        OptimizerOptions.of(self.optimizer)  # raises here rather than when the first student is built, after the teachers are trained

    @property
    def uses_hard_labels(self) -> bool:
        """Whether the training labels are part of the loss."""
        return self.kd_weight < 1.0


def distillation_settings(task: Task, /, **keywords: Any) -> DistillationSettings:
    """Return :class:`DistillationSettings` from keywords. A missing keyword or ``None`` means the task's default, else the field's default.

    Raises:
        InputError: a keyword is unknown, or its value has the wrong type or is out of range.
    """
    return DistillationSettings(**{**task_defaults(task), **checked(keywords, DistillationSettings)})


def student_config(settings: DistillationSettings, terms: Mapping[str, Term], teachers: TeacherShapes) -> StudentConfig:
    """Return the configuration from which the students of a run are built."""
    return StudentConfig(
        settings.student,
        settings.optimizer,
        tuple(terms.values()),
        teachers,
        settings.auxiliary_module,
        settings.device,
        settings.precision,
    )


def task_defaults(task: Task) -> dict[str, Any]:
    """Return the task's default for each setting that has one."""
    return {name: getattr(task.defaults, name) for name in ("student", "updates", "kd_weight", "temperature", "optimizer")}


def checked(keywords: Mapping[str, Any], *groups: type) -> dict[str, Any]:
    """Return ``keywords`` after a check of their names and types against the fields of ``groups``. Keywords that are ``None`` are left out.

    Raises:
        InputError: a keyword is unknown, or its value has the wrong type.
    """
    types = {name: kind for group in groups for name, kind in _types(group).items()}
    for name in keywords:
        if name in RENAMED:
            raise InputError(f"setting {name!r} is now called {RENAMED[name]!r}; use that name")
        if name not in types:
            raise spec.unknown("setting", name, types)
    return {name: _typed(name, value, types[name]) for name, value in keywords.items() if value is not None}


@lru_cache
def _types(group: type) -> dict[str, Any]:
    return typing.get_type_hints(group)  # takes a millisecond, and a run may have thousands of trials


def _typed(name: str, value: Any, kind: Any) -> Any:
    if typing.get_origin(kind) is Literal:
        if value not in typing.get_args(kind):
            raise InputError(f"{name}={value!r}: expected {' or '.join(typing.get_args(kind))}")
        return value
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind is int and isinstance(value, int) and abs(value) > MAX_INTEGER:
        raise InputError(f"{name}={value!r}: expected at most {MAX_INTEGER}")
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise InputError(f"{name}={value!r}: expected {kind.__name__}, got {type(value).__name__}")
    return value
