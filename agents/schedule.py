"""Settings that students can be taught with, and schedules of them. In: names of rules. Out: settings, and the parts of a schedule."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from baselines.rule import RULE_OPTIONS
from kd_env.errors import InputError
from kd_env.policies import PolicyBatch, registry
from kd_env.policies.protocol import Rule

RULES = "uniform;self_stacking;router;stacking;singles"
SINGLES = "singles"
"""Stands for ``single:0``, ``single:1`` and so on, one rule for each teacher."""


@dataclass(frozen=True)
class Setting:
    """What a member is taught with: a rule, and factors of the strengths and of the temperature in the settings of the environment."""

    rule: str
    strength: float = 1.0
    temperature: float = 1.0


@dataclass(frozen=True)
class Stage:
    """A setting, and the part of the budget from which it is used, in [0, 1)."""

    start: float
    setting: Setting

    @classmethod
    def of(cls, start: float, rule: str, strength: float, temperature: float) -> Stage:
        """Return the stage with these numbers."""
        return cls(start, Setting(rule, strength, temperature))


def checked_rules(policy_name: str, text: str, num_teachers: int) -> list[str]:
    """Return the names of the rules in the option ``rules`` of a policy, with :data:`SINGLES` written out.

    Raises:
        InputError: a policy is no rule, or it needs settings that the other members do not have.
    """
    parts = [name.strip() for name in text.split(";") if name.strip()] if isinstance(text, str) else []
    singles = [f"single:{teacher}" for teacher in range(num_teachers)]
    names = [name for part in parts for name in (singles if part == SINGLES else [part])]
    if not names:
        raise InputError(f"{policy_name}: rules={text!r}; name some, separated by semicolons, as in rules=uniform;router")
    for name in names:
        policy = registry.find(name)
        if not callable(getattr(policy.make, "decide", None)):
            raise InputError(f"{policy_name}: {name!r} in rules is not a rule; name policies that decide by a formula, such as uniform")
        if extra := sorted(set(policy.env_options) - {*RULE_OPTIONS, "action"}):
            raise InputError(f"{policy_name}: rule {name!r} needs the setting {extra[0]}, which all members share; leave it out of rules")
    return list(dict.fromkeys(names))


def rule_weights(policy_name: str, name: str, rule: Rule, batch: PolicyBatch) -> Tensor:
    """Return the weights ``[rows, K]`` of the rule called ``name``, one of the rules of a policy, for a mini-batch.

    Raises:
        InputError: it returns a whole decision.
    """
    weights = rule.decide(batch)
    if not isinstance(weights, Tensor):
        raise InputError(f"{policy_name}: rule {name!r} returns a {type(weights).__name__}; name rules that return weights of the teachers")
    return weights
