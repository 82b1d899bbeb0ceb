"""Policies of :mod:`agents.held_credit` or :mod:`agents.crossfit_credit` for the students of a population, in batched passes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from agents.credit_learners import MAX_NORM
from agents.credit_policies import CreditPolicies
from agents.network_stack import NetworkStack, clipped_each, split_students
from baselines.stacking import Instances
from kd_env.envs.actions import action_of_weights
from kd_env.policies import PolicyContext, Transition
from kd_env.types import Observation


class LearnsFromCredit(Protocol):
    """A policy whose learners can be stacked."""

    context: PolicyContext
    policies: CreditPolicies
    proposed: Tensor

    def mixed(self) -> np.ndarray:
        """Return the weights ``[n, K]`` for the proposed ones, ``[3, folds, n, K]``."""
        ...

    def compare(self, credit: Tensor, fold: int) -> int | None:
        """Change what the weights are mixed by. Return the fold whose learners are left out of the step."""
        ...


class CreditStack:
    """Several policies, see :class:`~kd_env.policies.protocol.PolicyStack`. Each keeps its start, and what its weights are mixed by."""

    def __init__(self, policies: Sequence[LearnsFromCredit]) -> None:
        """Stack the learners of the policies."""
        self._policies, self._size = policies, len(policies)
        self._first = policies[0].policies
        learners = [policy.policies.learners for policy in policies]
        self._networks = NetworkStack(learners, [each.optimizer for each in learners])

    def act(self, observation: Observation) -> np.ndarray:
        """Return the weights of all slots as actions."""
        batches = [policy.context.batch() for policy in self._policies]
        instances = Instances.of(torch.cat([batch.teacher_logits for batch in batches]), ())  # the learners read no features
        outputs, columns = (torch.stack(inputs.chunk(self._size)) for inputs in (instances.outputs, instances.columns))  # [S, n, ...]
        log_priors = [policy.policies.log_priors(batch) for policy, batch in zip(self._policies, batches, strict=True)]
        self._log_priors = torch.stack(log_priors)  # [S, 2, n, K]
        self._log_policies = self._networks(outputs, columns, self._log_priors)  # [S, folds, 2, n, K], whose gradient serves the update
        weights = self._first.weights(self._log_priors, self._log_policies.detach())  # [S, 3, folds, n, K]
        for policy, proposed in zip(self._policies, weights, strict=True):
            policy.proposed = proposed
        return action_of_weights(np.concatenate([policy.mixed() for policy in self._policies]))

    def update(self, transition: Transition) -> None:
        """Learn from the credit of the step."""
        if "credit" not in transition.info:  # a step that resets has none
            return
        credit = split_students(transition.info["credit"], self._size).float()  # [S, n, K]
        fold = int(transition.info["credit_fold"][0])  # all students have had as many updates, so it is the fold of all
        (left_out,) = {policy.compare(of_student, fold) for policy, of_student in zip(self._policies, credit, strict=True)}
        value = self._first.learners.value(self._log_policies, self._log_priors[:, None], credit[:, None, None])  # [S, folds, 2]
        self._networks.maximise(value.sum((1, 2)), lambda gradients: _clipped(gradients, left_out))

    def separate(self) -> None:
        """Let each policy go on alone."""
        self._networks.separate()


def _clipped(gradients: Mapping[str, Tensor], left_out: int | None) -> dict[str, Tensor]:
    """Clip the gradients ``[S, P, ...]`` of the learners of each fold, and leave out those of one fold."""
    clipped: dict[str, Tensor] = {}
    folds = {name.rpartition(".")[0] for name in gradients}  # names are folds.FOLD.NAME
    for fold in folds - {f"folds.{left_out}"}:
        of_fold = {name: gradient.flatten(0, 1) for name, gradient in gradients.items() if name.rpartition(".")[0] == fold}
        clipped |= {name: gradient.view_as(gradients[name]) for name, gradient in clipped_each(of_fold, MAX_NORM).items()}
    return clipped
