"""Rules and a learner by which a policy teaches students of its own. In: names. Out: the policies, and weights for a mini-batch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from baselines.rule import RULE_OPTIONS
from kd_env import spec
from kd_env.errors import InputError
from kd_env.policies import PolicyBatch, PolicyContext, registry
from kd_env.policies.access import ALLOWED
from kd_env.policies.faults import faults_of
from kd_env.policies.protocol import Rule

SINGLES = "singles"
"""Stands for ``single:0``, ``single:1`` and so on, one rule for each teacher."""


SUM_TOLERANCE = 1e-3
"""Weights of an instance whose sum differs more from 1 are divided by it."""


def checked_rules(policy_name: str, text: str, context: PolicyContext) -> list[str]:
    """Return the names of the rules in the option ``rules`` of a policy, with :data:`SINGLES` written out.

    Raises:
        InputError: a policy is not a rule, or it needs settings that the other students do not have.
    """
    parts = [name.strip() for name in text.split(";") if name.strip()] if isinstance(text, str) else []
    singles = [f"single:{teacher}" for teacher in range(context.num_teachers)]
    names = [name for part in parts for name in (singles if part == SINGLES else [part])]
    if not names:
        raise InputError(f"{policy_name}: rules={text!r}; name some, separated by semicolons, as in rules=uniform;router")
    for name in names:
        try:
            policy = registry.find(name)
        except InputError as error:
            raise InputError(f"{policy_name}: rules={text!r}: {error}") from None
        if not callable(getattr(policy.make, "decide", None)):
            raise InputError(f"{policy_name}: {name!r} in rules is not a rule; name policies that decide by a formula, such as uniform")
        if not ALLOWED[policy.access] <= ALLOWED[context.access]:
            raise InputError(f"{policy_name}: rule {name!r} reads {policy.access!r}, more than the {context.access!r} of {policy_name}")
        if not policy.supports_population:
            raise InputError(f"{policy_name}: rule {name!r} reads more of a student than its mini-batches; leave it out of rules")
        if extra := sorted(set(policy.env_options) - {*RULE_OPTIONS, "action"}):
            raise InputError(
                f"{policy_name}: rule {name!r} needs the setting {extra[0]}, which all its students share; leave it out of rules"
            )
    return list(dict.fromkeys(names))


def make_rule(name: str, context: PolicyContext, seed: int) -> Rule:
    """Return the rule called ``name``, fitted to what the context holds."""
    policy = registry.find(name)
    rule: Rule = spec.call_plugin(f"policy {name!r}", policy.make, policy.options, context, seed)
    return rule


def make_learner(policy_name: str, text: str, context: PolicyContext, seed: int) -> Any:
    """Return the learner that the option ``learner`` of a policy names.

    Raises:
        InputError: it has no method that such a learner needs, or it cannot be made.
    """
    policy = registry.find(text)
    for method in ("weigh", "act", "update", "state", "load_state"):
        if not callable(getattr(policy.make, method, None)):
            raise InputError(f"{policy_name}: learner={text!r} has no method {method}; use crossfit_credit, or add it to your class")
    try:
        return spec.call_plugin(f"policy {text!r}", policy.make, policy.options, context, seed)
    except InputError as error:
        raise InputError(f"{policy_name}: its learner cannot be made: {error}") from None


def rule_weights(policy_name: str, name: str, rule: Rule, batch: PolicyBatch) -> Tensor:
    """Return the weights ``[rows, K]`` of the rule called ``name``, one of the rules of a policy, for a mini-batch; rows sum to 1.

    Raises:
        InputError: it returns no weights of the teachers, or a negative one, or 0 for all teachers.
    """
    with faults_of(rule, "decide"):
        weights = rule.decide(batch)
    expected, place = (batch.num_rows, batch.num_teachers), f"{policy_name}: rule {name!r}"
    if not isinstance(weights, Tensor):
        raise InputError(f"{place} returns a {type(weights).__name__}; name rules that return weights of the teachers")
    if tuple(weights.shape) != expected:
        raise InputError(f"{place} returns weights of shape {tuple(weights.shape)}, expected {expected}")
    weights = weights.detach()
    sums = weights.sum(1, keepdim=True)
    if (weights < 0).any() or (sums <= 0).any():
        raise InputError(f"{place} returns weights that are negative, or 0 for all teachers of an instance")
    return torch.where((sums - 1.0).abs() > SUM_TOLERANCE, weights / sums, weights)
