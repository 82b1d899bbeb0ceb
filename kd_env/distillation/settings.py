"""Every keyword of an environment, in one place: what it means, its default, and what it may be.

In: keywords as a user typed them. Out: a checked, frozen :class:`Settings`; what is wrong is one :class:`InputError`.
"""

from __future__ import annotations

import math
import typing
from dataclasses import dataclass
from typing import Any, Literal

from kd_env import spec
from kd_env.errors import InputError
from kd_env.tasks import Task

Action = Literal["subset", "one", "weights", "soft", "hard", "joint"]
Granularity = Literal["instance", "batch"]
Reward = Literal["dev_improvement", "student_loss", "student_and_distillation_loss", "mixed"]
Credit = Literal["shared", "head", "first_order", "counterfactual"]


RENAMED = {"strength": "kd_weight", "features": "observation", "companion": "auxiliary_module"}
"""Former names of settings: they are refused with an error that gives the new name."""


@dataclass(frozen=True)
class Settings:
    """How a student is distilled and what the environment shows and pays.

    Attributes:
        student: architecture, as ``mlp(width=24)``, or a checkpoint, as ``PATH(layers=0;5)``. Default: the task's.
        updates: student updates in an episode, the budget. Default: the task's.
        batch_size: B, examples an update.
        optimizer: of the student, as ``adamw(lr=0.001,warmup=0.1,decay=linear)``. Default: the task's.
        kd_weight: weight of distillation against the hard label, in [0, 1]; 1 is pure distillation. Default: the task's.
        temperature: of the response loss. Default: the task's.
        knowledge: the types that teachers are asked for, as ``response,layer(strength=50)``, see ``kd-env list knowledge``.
        auxiliary_module: a module whose parameters learn with the student, ``module:Class(options)``.
        num_students: S, students that learn at once, each as it would alone, unless the ``knowledge`` is their peers'.
        reward_ce: strength of an extra cross-entropy on a mini-batch of reward-labelled examples (for rivals that train on those labels).
        action: ``subset`` (any teachers), ``one`` teacher, or ``weights`` over them; ``soft`` or ``hard`` knowledge; ``joint``.
        factors: what a ``joint`` action decides, of ``teachers, knowledge, kd_weight, temperature, abstain``.
        teacher_cost: what each teacher asked costs an instance, taken off its reward.
        updates_per_phase: mini-batches taught by one decision (``granularity=batch``).
        exploration_bonus: paid for other knowledge than in earlier phases, see ``kd_env.envs.rewards``.
        granularity: a decision for each ``instance``, or one for the ``batch``.
        reward: what is paid, see ``kd_env.envs.rewards``.
        measure: ``dev_improvement`` is the decrease of the held-out ``loss`` or the increase of the ``metric``.
        reward_mix: gamma of the ``mixed`` reward.
        credit: how ``dev_improvement`` is divided among the teachers of an instance, see ``kd_env.envs.credit``.
        credit_refresh: updates between two held-out gradients.
        normalize_credit: centre and scale credit over the K teachers of each instance.
        reward_every: updates between two measurements of ``dev_improvement``, in whole phases; one more at the end of the budget, with 0
            the only one.
        reward_examples: examples of the reward split in one measurement.
        reward_labels: how many labels the reward split has, 0 for all of them.
        label_seed: draws which ones; a trial draws them from its own seed.
        validation_every: updates between two evaluations on validation, 0 for a twentieth of the budget.
        observation: ``summary`` (transfers between tasks), ``full`` (RL-KD's) or ``cls`` (AKD's), see ``kd_env.envs.observations``.
        observe_labels: show the columns that read the training labels.
        device: ``auto``, ``cpu``, ``cuda``.
        precision: ``auto``, ``float32``, ``float64`` or ``bfloat16``.
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
    reward_ce: float = 0.0
    action: Action = "subset"
    granularity: Granularity = "instance"
    factors: str = "teachers,knowledge,kd_weight,temperature,abstain"
    teacher_cost: float = 0.0
    updates_per_phase: int = 1
    exploration_bonus: float = 0.0
    reward: Reward = "dev_improvement"
    measure: Literal["loss", "metric"] = "loss"
    reward_mix: float = 0.5
    credit: Credit = "shared"
    credit_refresh: int = 1
    normalize_credit: bool = True
    reward_every: int = 1
    reward_examples: int = 256
    reward_labels: int = 0
    label_seed: int = 0
    validation_every: int = 0
    observation: Literal["summary", "full", "cls"] = "full"
    observe_labels: bool = False
    device: str = "auto"
    precision: Literal["auto", "float32", "float64", "bfloat16"] = "auto"

    def __post_init__(self) -> None:
        """Check the values against each other and against their ranges."""
        for name in ("updates", "batch_size", "credit_refresh", "reward_examples", "num_students", "updates_per_phase"):
            _require(self, name, getattr(self, name) >= 1, "at least 1")
        for name in ("reward_every", "reward_labels", "label_seed", "validation_every", "reward_ce", "teacher_cost", "exploration_bonus"):
            _require(self, name, 0 <= getattr(self, name) < math.inf, "at least 0")
        for name in ("kd_weight", "reward_mix"):
            _require(self, name, 0.0 <= getattr(self, name) <= 1.0, "in [0, 1]")
        _require(self, "temperature", 0.0 < self.temperature < math.inf, "above 0")
        if self.credit != "shared" and self.reward != "dev_improvement":
            raise InputError(f"credit={self.credit!r} divides dev_improvement; reward={self.reward!r} goes with credit=shared")
        if self.updates_per_phase > 1 and self.granularity == "instance":
            raise InputError(f"updates_per_phase={self.updates_per_phase}: a phase is taught by one decision; give granularity=batch")


def settings(task: Task, /, **keywords: Any) -> Settings:
    """Make :class:`Settings` for ``task`` from keywords, the task's defaults filled in; ``None`` means the default.

    Raises:
        InputError: an unknown keyword, a value of the wrong type or outside its range.
    """
    fields = typing.get_type_hints(Settings)
    defaults = task.defaults
    values: dict[str, Any] = {
        "student": defaults.student,
        "updates": defaults.updates,
        "kd_weight": defaults.kd_weight,
        "temperature": defaults.temperature,
        "optimizer": defaults.optimizer,
    }
    for name, value in keywords.items():
        if name in RENAMED:
            raise InputError(f"setting {name!r} is now called {RENAMED[name]!r}; use that name")
        if name not in fields:
            raise spec.unknown("setting", name, fields)
        if value is not None:
            values[name] = _typed(name, value, fields[name])
    return Settings(**values)


def _typed(name: str, value: Any, kind: Any) -> Any:
    if typing.get_origin(kind) is Literal:
        if value not in typing.get_args(kind):
            raise InputError(f"{name}={value!r}: expected {' or '.join(typing.get_args(kind))}")
        return value
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise InputError(f"{name}={value!r}: expected {kind.__name__}, got {type(value).__name__}")
    return value


def _require(made: Settings, name: str, holds: bool, range_: str) -> None:
    if not holds:
        raise InputError(f"{name}={getattr(made, name)!r}: must be {range_}")
