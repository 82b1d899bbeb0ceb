"""``gradient_credit``: policy gradient on first-order credit, for every teacher of every instance at once.

The environment returns the credit of every teacher of every instance in ``info["credit"]``, so the expected reward
``sum_k pi_k(x) r_k(x)`` can be differentiated exactly, without sampling and without a baseline. So it is a full-information learner, and it
reads the gradient of the loss on the reward labels. The method is our own. The closest prior work is Differentiable Data Selection (Wang et
al. 2020, arXiv 1911.10088), which weighs data instead of teachers.

    J = mean_b [ sum_k pi_bk r_bk - prior_strength * KL(pi_b || prior_b) ]

The prior is uniform (then the KL is an entropy bonus) or, with ``router_start``, a gating network fitted by supervision, from which the
policy also starts. Three things prevent collapse (the student follows the policy and the policy the student): credit is normalised within
the instance, the prior, and a floor under every teacher's weight. Since credit comes for all teachers, whatever they taught, no exploration
is needed, and the student is taught with a sharper policy than the one that learns.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from agents.entropy import normalized_entropy
from agents.gradient_credit_stack import MAX_NORM, GradientCreditStack
from agents.saving import SavedAgent
from baselines.gating import LOG_FLOOR, GatingNetwork, fit_on_reward_split, gating_inputs, standardise
from kd_env import spec
from kd_env.envs.actions import action_of_weights
from kd_env.envs.observations import split_teachers
from kd_env.errors import InputError
from kd_env.policies import PolicyContext, Range, SearchSpace, Transition
from kd_env.randomness import seeded
from kd_env.types import Observation


class SelectionPolicy(nn.Module):
    """Selection logits: a gating network on the teachers' outputs, plus a linear function of the student's state that starts at zero."""

    def __init__(self, num_teachers: int, num_classes: int, num_context: int) -> None:
        """Make a gating network on ``K * C`` log-probabilities, and a linear map of ``num_context`` other columns."""
        super().__init__()
        self.num_teachers, self.num_classes = num_teachers, num_classes
        self.gate = GatingNetwork(num_teachers * num_classes, num_teachers)
        self.context = nn.Linear(num_context, num_teachers, bias=False)
        nn.init.zeros_(self.context.weight)

    def forward(self, observation: Mapping[str, Any]) -> Tensor:
        """Return logits, blocks ``[B, F]`` of the ``full`` observation -> ``[B, K]``; blocks are arrays or tensors."""
        teachers = torch.as_tensor(split_teachers(observation, self.num_teachers))  # [B, K, C (+ 1 with labels)]
        log_probabilities = teachers[:, :, : self.num_classes].clamp_min(np.exp(LOG_FLOOR)).log().flatten(1)
        blocks = [torch.as_tensor(observation[name]) for name in ("instance", "student", "progress")]
        logits: Tensor = self.gate(log_probabilities) + self.context(torch.cat([*blocks, teachers[:, :, self.num_classes :].flatten(1)], 1))
        return logits


class GradientCredit(SavedAgent):
    """Learns while it teaches. The result is the student that the run trains."""

    access = "reward gradient"
    learns_from = "credit of every teacher"
    paper = ""
    env_options: dict[str, Any] = {
        "granularity": "instance",
        "action": "weights",
        "observation": "full",
        "reward": "dev_improvement",
        "credit": "first_order",
    }
    stack = GradientCreditStack
    search_space: SearchSpace = {
        "learning_rate": Range(1e-4, 5e-3, log=True),
        "prior_strength": Range(0.01, 1.0, log=True),
        "sharpness": Range(1.0, 10.0, log=True),
    }

    def __init__(
        self,
        context: PolicyContext,
        seed: int = 0,
        learning_rate: float = 5e-4,
        prior_strength: float = 0.1,
        sharpness: float = 3.0,
        floor: float = 0.01,
        router_start: bool = False,
    ) -> None:
        """Make the policy network.

        Args:
            learning_rate: of Adam.
            prior_strength: weight of the KL to the prior, in units of normalised credit.
            sharpness: the student is taught with ``softmax(sharpness * logits)``.
            floor: weight that all teachers share equally, whatever the policy says.
            router_start: whether to start from, and stay near, a gating network fitted by supervision on the reward labels.
        """
        spec.numbers("gradient_credit", least=0, prior_strength=prior_strength, sharpness=sharpness)
        spec.numbers("gradient_credit", above=0, learning_rate=learning_rate)
        spec.numbers("gradient_credit", least=0, most=1, floor=floor)
        if context.settings.reward.credit == "shared":
            raise InputError("policy gradient_credit learns from credit; use credit=first_order, difference, head or counterfactual")
        self.seed, self.prior_strength, self.sharpness, self.floor = seed, prior_strength, sharpness, floor
        self.options = {
            "seed": seed,
            "learning_rate": learning_rate,
            "prior_strength": prior_strength,
            "sharpness": sharpness,
            "floor": floor,
            "router_start": router_start,
        }
        num_teachers, num_classes = context.num_teachers, context.num_classes
        num_context = sum(context.columns.values()) - num_teachers * num_classes
        with seeded(seed):
            self.policy = SelectionPolicy(num_teachers, num_classes, num_context)
            standardise(self.policy.gate, gating_inputs(context.reward_outputs().teacher_logits))
            if router_start:
                fit_on_reward_split(self.policy.gate, context, teacher_features=False)
        self.prior = copy.deepcopy(self.policy) if router_start else None
        self.optimizer = torch.optim.Adam(self.policy.parameters(), lr=learning_rate)

    @staticmethod
    def access_for(router_start: bool = False, **_options: object) -> str:
        """Return what it reads: with ``router_start`` also the labels of the reward split."""
        return "reward labels" if router_start else "reward gradient"

    def act(self, observation: Observation) -> np.ndarray:
        """Return the weights of all slots as actions."""
        return action_of_weights(self.probabilities(observation))

    @torch.no_grad()
    def probabilities(self, observation: Observation) -> np.ndarray:
        """Return the weights that the student is taught with, ``[num_envs, K]``."""
        return self.weights(self.policy(observation))

    def weights(self, logits: Tensor) -> np.ndarray:
        """Return the weights that the student is taught with, for logits ``[..., K]``."""
        probabilities = (self.sharpness * logits).softmax(-1)
        weights: np.ndarray = ((1.0 - self.floor) * probabilities + self.floor / probabilities.shape[-1]).numpy()
        return weights

    def selection_entropy(self, observation: Observation) -> np.ndarray:
        """Return the entropy of the weights over ln K, ``[num_envs]``."""
        return normalized_entropy(self.probabilities(observation))

    def update(self, transition: Transition) -> None:
        """Make one policy update with the credit of the step."""
        if "credit" in transition.info:  # a step that resets has none
            self.update_policy(transition.observation, torch.from_numpy(transition.info["credit"]).float())

    def update_policy(self, observation: Observation, credit: Tensor) -> None:
        """Make one policy update with ``credit [B, K]``."""
        with torch.no_grad():
            prior_logits = None if self.prior is None else self.prior(observation)
        value = self.value(self.policy(observation), prior_logits, credit)
        self.optimizer.zero_grad()
        (-value).backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.policy.parameters(), MAX_NORM)
        self.optimizer.step()

    def value(self, logits: Tensor, prior_logits: Tensor | None, credit: Tensor) -> Tensor:
        """Return what the policy maximises, ``[...]``, for logits of policy and prior, and credit, ``[..., B, K]`` each."""
        log_policy = logits.log_softmax(-1)
        log_prior = torch.zeros_like(log_policy) if prior_logits is None else prior_logits.log_softmax(-1)
        return (log_policy.exp() * (credit - self.prior_strength * (log_policy - log_prior))).sum(-1).mean(-1)

    def state(self) -> dict[str, Any]:
        """Return policy, prior and optimizer."""
        return {
            "policy": self.policy.state_dict(),
            "prior": None if self.prior is None else self.prior.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from what :meth:`state` returned."""
        self.policy.load_state_dict(state["policy"])
        if self.prior is not None:
            self.prior.load_state_dict(state["prior"])
        self.optimizer.load_state_dict(state["optimizer"])
