"""Policies that start from the reward labels and learn from credit: the parts that several agents share.

In: a mini-batch, and the credit of each teacher. Out: weights of the start, of the held policy and of the free policy, as they teach:
softmax(sharpness * log w), softmax(sharpness * log pi) and softmax(3 log rho).

    start:  w,                               fitted by supervision (:mod:`baselines.stacking`), each weight at least 1e-4
    held:   pi = softmax(log w + residual),  J = mean_b [ sum_k pi_bk r_bk - hold * KL(pi_b || w_b) ]
    free:   rho = softmax(residual),         J = mean_b [ sum_k rho_bk r_bk - prior * KL(rho_b || 1/K) ]

:mod:`agents.crossfit_credit` mixes the three, :mod:`agents.held_credit` the last two.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from agents.credit_learners import CreditLearners
from baselines.stacking import Instances, Stack
from kd_env import spec
from kd_env.errors import InputError
from kd_env.policies import PolicyBatch, PolicyContext, Range, SearchSpace
from kd_env.randomness import seeded

MIN_WEIGHT = 1e-4
PRIOR = 0.1
FREE_SHARPNESS = 3.0
SEARCH_SPACE: SearchSpace = {
    "learning_rate": Range(1e-4, 5e-3, log=True),
    "hold": Range(0.1, 10.0, log=True),
    "release": Range(0.1, 0.9),
    "rate": Range(0.05, 1.0, log=True),
}


class Proposal(NamedTuple):
    """What the policies propose for a mini-batch."""

    instances: Instances
    log_priors: Tensor  # [2, n, K]: of the held and of the free policy
    policies: Tensor  # [3, folds, n, K]: weights of the start, of the held policy and of the free policy, as they teach


class CreditPolicies:
    """The start, and a held and a free policy with one learner per fold."""

    def __init__(
        self, context: PolicyContext, seed: int, learning_rate: float, hold: float, num_folds: int, sharpness: float = 1.0
    ) -> None:
        """Fit the start; residuals are 0 at first.

        Args:
            context: see :class:`~kd_env.policies.PolicyContext`.
            seed: of the start and of the residuals.
            learning_rate: of Adam.
            hold: weight of the held policy's KL to the start, in units of normalised credit.
            num_folds: number of learners of each policy.
            sharpness: weights of the start and of the held policy are raised to this power and normalised.
        """
        self.sharpness = sharpness
        self.start = Stack(context.reward_examples(), seed)
        self._start_weights = context.once_per_example(self.start.of_teachers)
        examples = context.reward_outputs()
        instances = Instances.of(examples.teacher_logits, examples.teacher_features)
        with seeded(seed):
            self.learners = CreditLearners(instances, learning_rate, (hold, PRIOR), num_folds)

    @property
    def num_folds(self) -> int:
        """Number of learners of each policy."""
        return len(self.learners.folds)

    @torch.no_grad()
    def propose(self, batch: PolicyBatch) -> Proposal:
        """Return the weights of the three policies for a mini-batch."""
        instances, log_priors = Instances.of(batch.teacher_logits, batch.teacher_features), self.log_priors(batch)
        return Proposal(instances, log_priors, self.weights(log_priors, self.learners.log_policies(instances, log_priors)))

    @torch.no_grad()
    def log_priors(self, batch: PolicyBatch) -> Tensor:
        """Return the logarithms of the priors of the held and of the free policy, ``[2, n, K]``."""
        log_start = self._start_weights(batch).clamp_min(MIN_WEIGHT).log().log_softmax(1)
        return torch.stack([log_start, torch.zeros_like(log_start).log_softmax(1)])

    def weights(self, log_priors: Tensor, log_policies: Tensor) -> Tensor:
        """Return the weights of the three policies as they teach, ``[..., 3, folds, n, K]``.

        Args:
            log_priors: ``[..., 2, n, K]``.
            log_policies: of the held and of the free policy, ``[..., folds, 2, n, K]``.
        """
        log_held, log_free = log_policies.unbind(-3)
        start, held, free = (
            _sharp(log_priors[..., :1, :, :], self.sharpness),
            _sharp(log_held, self.sharpness),
            _sharp(log_free, FREE_SHARPNESS),
        )
        return torch.stack([start.expand_as(held), held, free], -4)

    def learn(self, proposal: Proposal, credit: Tensor, left_out: int | None = None) -> None:
        """Take one step with ``credit [n, K]`` for the mini-batch of ``proposal``, in all folds but ``left_out``."""
        self.learners.learn(proposal.instances, proposal.log_priors, credit, left_out)

    def state(self) -> dict[str, Any]:
        """Return start and learners."""
        return {"start": self.start.state_dict(), "learners": self.learners.state()}

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from what :meth:`state` returned; other entries are left out."""
        self.start.load_state_dict(state["start"])
        self._start_weights.forget()
        self.learners.load_state(state["learners"])


def _sharp(log_policy: Tensor, sharpness: float) -> Tensor:
    """Return the weights of a policy, raised to a power and normalised."""
    return log_policy.exp() if sharpness == 1.0 else (sharpness * log_policy).softmax(-1)


def check_options(name: str, context: PolicyContext, learning_rate: float, hold: float, release: float, rate: float, floor: float) -> None:
    """Check the options that the agents have in common; ``name`` is the policy's.

    Raises:
        InputError: an option is out of range, or the environment pays no credit of single teachers.
    """
    spec.numbers(name, least=0, hold=hold, release=release, rate=rate)
    spec.numbers(name, above=0, learning_rate=learning_rate)
    spec.numbers(name, least=0, most=1, floor=floor)
    if context.settings.reward.credit == "shared":
        raise InputError(f"policy {name} learns from credit; use credit=first_order, difference, head or counterfactual")
