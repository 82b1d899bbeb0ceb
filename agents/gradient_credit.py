"""``gradient_credit``: policy gradient on first-order credit, for every teacher of every instance at once.

The environment says in ``info["credit"]`` what each teacher of each instance is worth, so the expected reward ``sum_k pi_k(x) r_k(x)``
can be differentiated exactly: no sampling, no baseline. That makes it a full-information learner; it reads the reward labels' gradient.
Ours; the closest prior work is Differentiable Data Selection (Wang et al. 2020, arXiv 1911.10088), which weighs data rather than
teachers.

Against collapse (the student follows the policy and the policy the student): credit normalised within the instance, an entropy bonus, a
floor under every teacher's weight.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from baselines.gate import LOG_FLOOR, Gate, gate_inputs, standardise
from baselines.router import fit_on_reward_split
from kd_env.envs.actions import from_weights
from kd_env.envs.observations import split_teachers
from kd_env.envs.selection import Selection
from kd_env.types import Observation


class SelectionPolicy(nn.Module):
    """Teacher logits from what the teachers say (a gate) plus what the student is like (linear, from zero)."""

    def __init__(self, num_teachers: int, num_classes: int, num_context: int) -> None:
        """Make a gate on ``K * C`` log-probabilities and a linear map from the context."""
        super().__init__()
        self.num_teachers, self.num_classes = num_teachers, num_classes
        self.gate = Gate(num_teachers * num_classes, num_teachers)
        self.context = nn.Linear(num_context, num_teachers, bias=False)
        nn.init.zeros_(self.context.weight)

    def forward(self, observation: Observation) -> Tensor:
        """Blocks ``[B, F]`` of the ``full`` features -> logits ``[B, K]``."""
        teachers = torch.from_numpy(split_teachers(observation, self.num_teachers))  # [B, K, C (+ 1 with labels)]
        said = teachers[:, :, : self.num_classes].clamp_min(np.exp(LOG_FLOOR)).log().flatten(1)
        blocks = [torch.from_numpy(observation[name]) for name in ("instance", "student", "progress")]
        logits: Tensor = self.gate(said) + self.context(torch.cat([*blocks, teachers[:, :, self.num_classes :].flatten(1)], 1))
        return logits


class GradientCredit:
    """Learns while it teaches: the student of the run is the product."""

    access = "reward gradient"
    env_options: dict[str, Any] = {
        "granularity": "instance",
        "action": "weights",
        "features": "full",
        "reward": "dev_improvement",
        "credit": "first_order",
    }

    def __init__(
        self,
        env: Any,
        seed: int = 0,
        learning_rate: float = 5e-4,
        entropy: float = 0.1,
        floor: float = 0.02,
        router_start: bool = False,
    ) -> None:
        """Make the policy network.

        Args:
            learning_rate: of Adam.
            entropy: bonus on the policy's entropy, in units of normalised credit.
            floor: weight shared by all teachers whatever the policy says.
            router_start: start from a gate fitted by supervision on the reward labels.
        """
        self.env = env
        selection: Selection = env.unwrapped.selection
        self.seed, self.entropy, self.floor = seed, entropy, floor
        space = env.single_observation_space
        num_teachers, num_classes = selection.num_teachers, selection.material.task.num_classes
        num_context = sum(space[name].shape[0] for name in space) - num_teachers * num_classes
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.policy = SelectionPolicy(num_teachers, num_classes, num_context)
            said = selection.material.bank.gather("reward", np.arange(len(selection.material.labels["reward"])))
            standardise(self.policy.gate, gate_inputs(torch.from_numpy(said.logits)))
            if router_start:
                fit_on_reward_split(self.policy.gate, selection, seed, teacher_features=False)
        self.optimizer = torch.optim.Adam(self.policy.parameters(), lr=learning_rate)

    @torch.no_grad()
    def act(self, observation: Observation) -> np.ndarray:
        """Weights of all slots."""
        probabilities = self.policy(observation).softmax(1)
        return from_weights(((1.0 - self.floor) * probabilities + self.floor / probabilities.shape[1]).numpy())

    def learn(self, env: Any, num_updates: int) -> GradientCredit:
        """Teach ``num_updates`` mini-batches of ``env`` and follow the credit."""
        observation, _ = env.reset(seed=self.seed)
        for _ in range(num_updates):
            following, _, _, _, info = env.step(self.act(observation))
            if "credit" in info:
                self.follow(observation, torch.from_numpy(info["credit"]).float())
            observation = following
        return self

    def follow(self, observation: Observation, credit: Tensor) -> None:
        """One policy update; ``credit [B, K]``."""
        log_policy = self.policy(observation).log_softmax(1)  # [B, K]
        policy = log_policy.exp()
        expected = (policy * credit).sum(1).mean()
        spread = -(policy * log_policy).sum(1).mean()
        self.optimizer.zero_grad()
        (-expected - self.entropy * spread).backward()
        nn.utils.clip_grad_norm_(self.policy.parameters(), 1.0)
        self.optimizer.step()

    def save(self, path: str) -> None:
        """Write the policy's weights (safetensors)."""
        save_file(self.policy.state_dict(), path)

    @classmethod
    def load(cls, path: str, env: Any) -> GradientCredit:
        """Read a policy for ``env``."""
        agent = cls(env)
        agent.policy.load_state_dict(load_file(path))
        return agent
