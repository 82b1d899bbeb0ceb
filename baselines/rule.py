"""Base class of the rules of this package: they decide from the mini-batch, and learn nothing from rewards.

A rule of your own need not derive from :class:`BaseRule`: any class that is built as ``R(context, seed, **options)`` and has
``decide(batch)`` is a rule.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from kd_env.errors import InputError
from kd_env.policies import PolicyBatch, PolicyContext
from kd_env.types import Decision

RULE_OPTIONS: dict[str, Any] = {"granularity": "instance", "reward_every": 0}
"""Env keywords of all rules: they do not use the reward, so it is measured once, at the end."""
WEIGHTS: dict[str, Any] = {**RULE_OPTIONS, "action": "weights"}
"""Env keywords of rules that weigh all teachers."""
ONE: dict[str, Any] = {**RULE_OPTIONS, "action": "one"}
"""Env keywords of rules that choose one teacher."""


class BaseRule(ABC):
    """A policy given by a formula.

    Attributes:
        context: what the rule's ``access`` allows it to know besides the mini-batch.
        rng: draws from the policy's seed.
    """

    access = "nothing"
    paper = ""
    env_options: dict[str, Any] = WEIGHTS
    min_teachers = 1

    def __init__(self, context: PolicyContext, seed: int = 0) -> None:
        """Keep the context.

        Raises:
            InputError: the pool has too few teachers for the formula.
        """
        self.context, self.rng = context, np.random.default_rng(seed)
        if context.num_teachers < self.min_teachers:
            raise InputError(
                f"policy {context.name!r} needs at least {self.min_teachers} teachers, pool {context.pool_name!r} has "
                f"{context.num_teachers}; name more --teachers, or leave the policy out"
            )

    def state(self) -> dict[str, Any]:
        """Return all that changes while the rule decides: its random state, and what a subclass adds."""
        return {"rng": self.rng.bit_generator.state}

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from what :meth:`state` returned."""
        self.rng.bit_generator.state = state["rng"]

    @abstractmethod
    def decide(self, batch: PolicyBatch) -> Tensor | Decision:
        """Return weights ``[rows, K]``, rows on the simplex, or a decision; ``context.decision`` fills in the setting's strengths."""


def uniform(batch: PolicyBatch) -> Tensor:
    """Return weights ``[rows, K]`` of 1/K."""
    return torch.full((batch.num_rows, batch.num_teachers), 1.0 / batch.num_teachers)


def choice(teachers: Tensor | np.ndarray, num_teachers: int) -> Tensor:
    """Return weight 1 for the chosen ``teachers [rows]``, ``[rows, K]``."""
    return one_hot(torch.as_tensor(teachers), num_teachers).float()


def auxiliary_output(batch: PolicyBatch, rule: BaseRule) -> Tensor:
    """Return the output of the rule's auxiliary module ``[rows, ...]``, with the gradient that it learns by.

    Raises:
        InputError: the setting has no auxiliary module.
    """
    output = batch.student_output.auxiliary
    if output is None:
        name = rule.env_options["auxiliary_module"]
        raise InputError(f"auxiliary_module='': policy {rule.context.name!r} learns with its own, {name}; leave auxiliary_module out")
    return output
