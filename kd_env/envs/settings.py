"""Every keyword of an environment, in three groups: how students are distilled, what is paid, what a policy is shown and decides.

In: keywords as a user typed them. Out: checked, frozen :class:`Settings`; anything wrong is one :class:`~kd_env.errors.InputError`.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from kd_env.distillation.settings import DistillationSettings, checked, require_range, task_defaults
from kd_env.errors import InputError
from kd_env.tasks import Task

Granularity = Literal["instance", "batch"]


@dataclass(frozen=True)
class RewardSettings:
    """What a policy is paid.

    Attributes:
        reward: a name of ``kd-env list rewards``, or ``module:Class``, see :mod:`kd_env.envs.rewards`.
        measure: ``dev_improvement`` is the decrease of the held-out ``loss`` or the increase of the ``metric``.
        reward_mix: gamma of the ``mixed`` reward, in [0, 1].
        reward_every: updates between two measurements of ``dev_improvement``, in whole phases; one more at the end of the budget, with 0
            the only one.
        reward_examples: examples of the reward split in one measurement.
        reward_labels: number of labels of the reward split, 0 for all of them.
        label_seed: chooses which ones; a trial sets it to its own seed.
        credit: ``shared``, or how ``dev_improvement`` is divided among the teachers of an instance, see :mod:`kd_env.envs.credit`.
        credit_refresh: updates between two held-out gradients.
        normalize_credit: centre and scale credit over the K teachers of each instance.
        teacher_cost: cost of each teacher asked, subtracted from the reward of the instance.
        exploration_bonus: weight of a bonus for other knowledge than in earlier phases, see :mod:`kd_env.envs.exploration`.
    """

    reward: str = "dev_improvement"
    measure: Literal["loss", "metric"] = "loss"
    reward_mix: float = 0.5
    reward_every: int = 1
    reward_examples: int = 256
    reward_labels: int = 0
    label_seed: int = 0
    credit: str = "shared"
    credit_refresh: int = 1
    normalize_credit: bool = True
    teacher_cost: float = 0.0
    exploration_bonus: float = 0.0

    def __post_init__(self) -> None:
        """Check the values against their ranges and each other."""
        require_range(self, "at least 1", lambda value: value >= 1, "credit_refresh", "reward_examples")
        whole = ("reward_every", "reward_labels", "label_seed", "teacher_cost", "exploration_bonus")
        require_range(self, "at least 0", lambda value: 0 <= value < math.inf, *whole)
        require_range(self, "in [0, 1]", lambda value: 0.0 <= value <= 1.0, "reward_mix")
        if self.credit != "shared" and self.reward != "dev_improvement":
            raise InputError(f"credit={self.credit!r} divides dev_improvement; reward={self.reward!r} goes with credit=shared")


@dataclass(frozen=True)
class InterfaceSettings:
    """What a policy is shown, and what it decides.

    Attributes:
        action: ``subset`` (any teachers), ``one`` teacher, or ``weights`` over them; ``soft`` or ``hard`` knowledge; ``joint``; or
            ``module:Class``, see :mod:`kd_env.envs.actions`.
        granularity: a decision for each ``instance``, or one for the ``batch``.
        factors: what a ``joint`` action decides, of ``teachers,knowledge,kd_weight,temperature,abstain``.
        updates_per_phase: mini-batches taught with one decision (``granularity=batch``).
        observation: ``summary`` (transfers between tasks), ``full`` (RL-KD's) or ``cls`` (AKD's), or ``module:Class``, see
            :mod:`kd_env.envs.observations`.
        observe_labels: show the columns that read the training labels.
        validation_every: updates between two evaluations on validation, 0 for a twentieth of the budget.
    """

    action: str = "subset"
    granularity: Granularity = "instance"
    factors: str = "teachers,knowledge,kd_weight,temperature,abstain"
    updates_per_phase: int = 1
    observation: str = "full"
    observe_labels: bool = False
    validation_every: int = 0

    def __post_init__(self) -> None:
        """Check the values against their ranges and each other."""
        require_range(self, "at least 1", lambda value: value >= 1, "updates_per_phase")
        require_range(self, "at least 0", lambda value: value >= 0, "validation_every")
        if self.updates_per_phase > 1 and self.granularity == "instance":
            raise InputError(f"updates_per_phase={self.updates_per_phase}: a phase is taught with one decision; give granularity=batch")


@dataclass(frozen=True)
class Settings:
    """All settings of an environment."""

    distillation: DistillationSettings
    reward: RewardSettings
    interface: InterfaceSettings

    def flat(self) -> dict[str, Any]:
        """Return all settings as the keywords that ``gymnasium.make`` takes."""
        return {name: value for group in asdict(self).values() for name, value in group.items()}


GROUPS: tuple[type, ...] = (DistillationSettings, RewardSettings, InterfaceSettings)


def settings(task: Task, /, **keywords: Any) -> Settings:
    """Make :class:`Settings` for ``task`` from keywords; what is missing or ``None`` is the task's default, or the field's.

    Raises:
        InputError: an unknown keyword, a value of the wrong type or outside its range.
    """
    values = {**task_defaults(task), **checked(keywords, *GROUPS)}
    groups = [group(**{f.name: values[f.name] for f in fields(group) if f.name in values}) for group in GROUPS]
    return Settings(*groups)
