"""What every rule shares: it looks at the mini-batch's features and says who teaches, and learns nothing from reward."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from torch import Tensor

from kd_env.envs.actions import from_weights
from kd_env.envs.selection import Selection
from kd_env.errors import InputError
from kd_env.types import Batch, Decision, Observation

RULE_OPTIONS: dict[str, Any] = {"granularity": "instance", "reward_every": 0}
"""Env keywords of every rule: it does not look at the reward, so one measurement at the end is all that is paid for."""


class Rule(ABC):
    """A policy given by a formula, exact because it reads the teachers' logits rather than the clipped observation."""

    access = "nothing"
    paper = ""
    env_options = RULE_OPTIONS
    min_teachers = 1

    def __init__(self, env: Any, seed: int = 0) -> None:
        """Keep what the rule reads."""
        self.selection: Selection = env.unwrapped.selection
        self.rng = np.random.default_rng(seed)
        if self.selection.num_teachers < self.min_teachers:
            raise InputError(
                f"policy {type(self).__name__} needs at least {self.min_teachers} teachers, pool {self.selection.pool.name!r} has "
                f"{self.selection.num_teachers}"
            )

    @abstractmethod
    def act(self, observation: Observation) -> np.ndarray | Decision:
        """Actions for all slots, or the whole decision about them."""

    @property
    def features(self) -> Batch:
        """The mini-batch about to be taught."""
        return self.selection.distillation.observe()


class Weighting(Rule):
    """A rule that weighs all teachers: action ``weights``."""

    env_options = {**RULE_OPTIONS, "action": "weights"}

    @abstractmethod
    def weigh(self, features: Batch) -> Tensor:
        """Weights ``[B, K]``, rows on the simplex."""

    def act(self, observation: Observation) -> np.ndarray:
        """The weights as actions."""
        return from_weights(self.weigh(self.features).cpu().numpy())


class Teaching(Rule):
    """A rule that makes the whole decision: weights of their own for each knowledge type, strengths, gradients."""

    env_options = {**RULE_OPTIONS, "action": "weights"}

    @property
    def said(self) -> Tensor:
        """What its auxiliary_module says of the mini-batch, ``[B, ...]``, with the gradient that it learns by.

        Raises:
            InputError: the setting has no auxiliary_module.
        """
        said = self.selection.distillation.student_output().auxiliary
        if said is None:
            name = self.env_options["auxiliary_module"]
            raise InputError(f"auxiliary_module='': policy {type(self).__name__} learns by its own, {name}; leave auxiliary_module out")
        return said

    @abstractmethod
    def decide(self, features: Batch) -> Decision:
        """The decision about the B instances; :func:`kd_env.envs.decisions.taught` fills in what the setting says."""

    def act(self, observation: Observation) -> Decision:
        """The decision."""
        return self.decide(self.features)


class Choosing(Rule):
    """A rule that picks one teacher: action ``one``."""

    env_options = {**RULE_OPTIONS, "action": "one"}

    @abstractmethod
    def choose(self, features: Batch) -> np.ndarray:
        """Teachers ``[B]``."""

    def act(self, observation: Observation) -> np.ndarray:
        """The choices as actions."""
        return self.choose(self.features)
