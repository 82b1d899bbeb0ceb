"""Define all keywords of an environment in three groups: distillation, rewards, and the interface to the policy.

In: keywords from the user. Out: checked, frozen :class:`Settings`, or an :class:`~kd_env.errors.InputError`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from kd_env import spec
from kd_env.distillation.settings import DistillationSettings, checked, task_defaults
from kd_env.errors import InputError
from kd_env.tasks import Task

Granularity = Literal["instance", "batch"]


@dataclass(frozen=True)
class RewardSettings:
    """Settings of rewards and credit.

    Attributes:
        reward: name in ``kd-env list rewards``, or ``module:Class``, see ``kd_env.envs.rewards``.
        measure: measure of ``dev_improvement``: the decrease of the held-out ``loss``, or the increase of the ``metric``.
        reward_mix: gamma of the ``mixed`` reward, in [0, 1].
        reward_every: updates between two measurements of ``dev_improvement``, rounded up to whole phases; 0 for one at
            the end of the budget.
        reward_examples: number of examples of the reward split in one measurement.
        reward_labels: number of labels of the reward split that are used; 0 for all.
        label_seed: seed that chooses these labels; a trial sets it to its own seed.
        credit: ``shared``, or an estimate for each instance and teacher instead of the measured ``dev_improvement``, with options in
            brackets, as in ``first_order(smoothing=-0.3)``; see ``kd_env.envs.credit``.
        credit_refresh: updates between two held-out gradients.
        normalize_credit: whether to normalise credit: centred and scaled over the teachers in teacher selection, only scaled in the others.
        teacher_cost: cost of each selected teacher, subtracted from the reward of the instance.
        exploration_bonus: weight of a bonus for gates that differ from earlier phases, see ``kd_env.envs.exploration``.
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
        """Check the ranges and the combination of the values."""
        spec.numbers("", least=1, whole=True, credit_refresh=self.credit_refresh, reward_examples=self.reward_examples)
        spec.numbers("", least=0, whole=True, reward_every=self.reward_every, reward_labels=self.reward_labels, label_seed=self.label_seed)
        spec.numbers("", least=0, teacher_cost=self.teacher_cost, exploration_bonus=self.exploration_bonus)
        spec.numbers("", least=0, most=1, reward_mix=self.reward_mix)
        if self.credit != "shared" and self.reward != "dev_improvement":
            raise InputError(f"credit={self.credit!r} replaces the measured dev_improvement; with reward={self.reward!r} use credit=shared")


@dataclass(frozen=True)
class InterfaceSettings:
    """Settings of actions and observations.

    Attributes:
        action: kind of action: ``subset``, ``one`` or ``weights`` of teachers; ``soft`` or ``hard`` knowledge; ``joint``; ``module:Class``.
        granularity: one action for each ``instance``, or one for the whole ``batch``.
        factors: factors of a ``joint`` action, of ``teachers,knowledge,kd_weight,temperature,abstain``.
        updates_per_phase: number of mini-batches that are taught with one action (``granularity=batch``).
        observation: observation set: ``summary`` (transfers between tasks), ``full`` (RL-KD), ``cls`` (AKD) or ``module:Class``.
        observe_labels: whether to include the columns that read the training labels.
        validation_every: updates between two evaluations on validation; 0 for a twentieth of the budget.
    """

    action: str = "subset"
    granularity: Granularity = "instance"
    factors: str = "teachers,knowledge,kd_weight,temperature,abstain"
    updates_per_phase: int = 1
    observation: str = "full"
    observe_labels: bool = False
    validation_every: int = 0

    def __post_init__(self) -> None:
        """Check the ranges and the combination of the values."""
        spec.numbers("", least=1, whole=True, updates_per_phase=self.updates_per_phase)
        spec.numbers("", least=0, whole=True, validation_every=self.validation_every)
        if self.updates_per_phase > 1 and self.granularity == "instance":
            raise InputError(f"updates_per_phase={self.updates_per_phase}: a phase is taught with one action; give granularity=batch")


@dataclass(frozen=True)
class Settings:
    """All settings of an environment."""

    distillation: DistillationSettings
    reward: RewardSettings
    interface: InterfaceSettings

    def flat(self) -> dict[str, Any]:
        """Return all settings as keywords of ``gymnasium.make``."""
        return {name: value for group in asdict(self).values() for name, value in group.items()}


GROUPS: tuple[type, ...] = (DistillationSettings, RewardSettings, InterfaceSettings)


def settings(task: Task, /, **keywords: Any) -> Settings:
    """Return :class:`Settings` for ``task`` from keywords. A missing keyword or ``None`` means the task's default, else the field's.

    Raises:
        InputError: a keyword is unknown, or its value has the wrong type or is out of range.
    """
    values = {**task_defaults(task), **checked(keywords, *GROUPS)}
    groups = [group(**{f.name: values[f.name] for f in fields(group) if f.name in values}) for group in GROUPS]
    return Settings(*groups)
