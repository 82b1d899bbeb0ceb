"""``ppo``: proximal policy optimisation over teachers (Schulman et al. 2017, arXiv 1707.06347); it works with any number of them.

For every instance the agent draws one teacher from ``pi(k|s)``, the softmax of a network's scores (:mod:`agents.teacher_scorer`). After
``rollout`` mini-batches it makes ``epochs`` passes over them in mini-batches of ``part_size`` instances, and each moves the networks along

    L = mean[ min(rho A, clip(rho, 1 - clip, 1 + clip) A) ] + entropy_bonus mean[ H(pi) ] - value_weight mean[ (V - R)^2 ]

with ``rho = pi(k|s) / pi_drawn(k|s)``, and advantages A and returns R by GAE (:mod:`agents.rollout`). Advantages are standardised within
a part. The reward of an instance is by default the first-order credit of its teacher, normalised over the teachers; therefore the discount
is 0.

Deviations: rewards are standardised by running moments, and columns likewise, so that no default depends on the task; the learning rate and
``clip`` are constant; the value loss is not clipped.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from agents.entropy import normalized_entropy
from agents.moments import RunningMoments
from agents.rollout import RewardedStep, Rollout, SampledActions, rollout
from agents.saving import SavedAgent
from agents.teacher_scorer import ActorCritic, num_columns, teacher_columns
from kd_env import spec
from kd_env.policies import PolicyContext, Range, SearchSpace, Transition
from kd_env.randomness import seeded
from kd_env.types import Observation


class PPO(SavedAgent):
    """Learns while it teaches. The result is the student that the run trains."""

    access = "reward gradient"
    learns_from = "the reward of the drawn teacher"
    paper = "Schulman et al. 2017, arXiv 1707.06347"
    any_pool = True
    env_options: dict[str, Any] = {
        "granularity": "instance",
        "action": "one",
        "observation": "summary",
        "reward": "dev_improvement",
        "credit": "first_order",
    }
    search_space: SearchSpace = {
        "learning_rate": Range(3e-4, 3e-2, log=True),
        "entropy_bonus": Range(0.003, 0.3, log=True),
        "clip": Range(0.05, 0.4),
    }

    def __init__(
        self,
        context: PolicyContext,
        seed: int = 0,
        learning_rate: float = 3e-3,
        rollout: int = 16,
        epochs: int = 4,
        part_size: int = 128,
        clip: float = 0.2,
        discount: float = 0.0,
        gae_lambda: float = 0.95,
        entropy_bonus: float = 0.03,
        value_weight: float = 0.5,
        max_gradient: float = 0.5,
        hidden: int = 64,
        read_student: bool = True,
    ) -> None:
        """Make actor and critic.

        Args:
            context: see :class:`~kd_env.policies.PolicyContext`.
            seed: of the networks and of the draws.
            learning_rate: of Adam.
            rollout: number of mini-batches between two updates of the policy.
            epochs: number of passes over a rollout.
            part_size: number of instances in one gradient step.
            clip: epsilon, the change of a probability beyond which nothing is gained.
            discount: gamma, per mini-batch; above 0 only for rewards that depend on earlier decisions, as with ``credit=shared``.
            gae_lambda: lambda of GAE.
            entropy_bonus: weight of the entropy of the policy.
            value_weight: weight of the critic's loss.
            max_gradient: largest norm of a gradient; longer ones are scaled.
            hidden: width of the layers.
            read_student: whether to read the columns that the student and the progress decide.
        """
        spec.numbers("ppo", least=1, whole=True, rollout=rollout, epochs=epochs, part_size=part_size, hidden=hidden)
        spec.numbers("ppo", above=0, learning_rate=learning_rate, max_gradient=max_gradient, clip=clip)
        spec.numbers("ppo", least=0, entropy_bonus=entropy_bonus, value_weight=value_weight)
        spec.numbers("ppo", least=0, most=1, discount=discount, gae_lambda=gae_lambda)
        self.options = {
            "seed": seed,
            "learning_rate": learning_rate,
            "rollout": rollout,
            "epochs": epochs,
            "part_size": part_size,
            "clip": clip,
            "discount": discount,
            "gae_lambda": gae_lambda,
            "entropy_bonus": entropy_bonus,
            "value_weight": value_weight,
            "max_gradient": max_gradient,
            "hidden": hidden,
            "read_student": read_student,
        }
        self.rollout, self.epochs, self.part_size, self.clip = rollout, epochs, part_size, clip
        self.discount, self.gae_lambda = discount, gae_lambda
        self.entropy_bonus, self.value_weight, self.max_gradient = entropy_bonus, value_weight, max_gradient
        self.num_teachers, self.read_student = context.num_teachers, read_student
        with seeded(seed):
            self.net = ActorCritic(num_columns(context.columns, self.num_teachers), hidden)
        self.optimizer = torch.optim.Adam(self.net.parameters(), lr=learning_rate, eps=1e-5)
        self.generator = torch.Generator().manual_seed(seed)
        self.rewards = RunningMoments(decay=0.99)
        self.begin_episode(learning=True)

    def begin_episode(self, learning: bool) -> None:
        """Begin a rollout with a new student."""
        self._learning = learning
        self._steps: list[RewardedStep] = []

    @torch.no_grad()
    def act(self, observation: Observation) -> np.ndarray:
        """Return a drawn teacher for every slot, ``[num_envs]``."""
        columns = teacher_columns(observation, self.num_teachers, self.read_student)
        if self._learning and not self._steps:  # within a rollout the moments stay, so that rho is 1 before the first gradient step
            self.net.standardise.adapt(columns)
        logits, value = self.net(columns)
        teachers = torch.multinomial(logits.softmax(1), 1, generator=self.generator)  # [B, 1]
        self._actions = SampledActions(columns, teachers[:, 0], logits.log_softmax(1).gather(1, teachers)[:, 0], value)
        drawn: np.ndarray = teachers[:, 0].numpy()
        return drawn

    @torch.no_grad()
    def selection_entropy(self, observation: Observation) -> np.ndarray:
        """Return the entropy of the policy over ln K, ``[num_envs]``."""
        return normalized_entropy(self.net(teacher_columns(observation, self.num_teachers, self.read_student))[0].softmax(1).numpy())

    def update(self, transition: Transition) -> None:
        """Keep the step; learn once a rollout is complete."""
        reward = self.rewards.standardise(torch.from_numpy(transition.reward).float())
        self._steps.append(RewardedStep(self._actions, reward, torch.from_numpy(transition.terminated).float()))
        if len(self._steps) == self.rollout or transition.terminated.all():
            with torch.no_grad():
                next_value = self.net(teacher_columns(transition.next_observation, self.num_teachers, self.read_student))[1]
            self._learn(rollout(self._steps, next_value, self.discount, self.gae_lambda))
            self._steps = []

    def _learn(self, steps: Rollout) -> None:
        """Make the gradient steps of one rollout."""
        for _ in range(self.epochs):
            for rows in torch.randperm(len(steps.teachers), generator=self.generator).split(self.part_size):  # type: ignore[no-untyped-call]
                loss = self.loss(Rollout(*(part[rows] for part in steps)))
                self.optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                nn.utils.clip_grad_norm_(self.net.parameters(), self.max_gradient)
                self.optimizer.step()

    def loss(self, minibatch: Rollout) -> Tensor:
        """Return -L of some instances."""
        logits, value = self.net(minibatch.columns)
        log_policy = logits.log_softmax(1)  # [n, K]
        ratio = (log_policy.gather(1, minibatch.teachers[:, None])[:, 0] - minibatch.log_probability).exp()
        advantage = (minibatch.advantage - minibatch.advantage.mean()) / (minibatch.advantage.std(correction=0) + 1e-8)
        surrogate = torch.minimum(ratio * advantage, ratio.clamp(1.0 - self.clip, 1.0 + self.clip) * advantage).mean()
        entropy = -(log_policy.exp() * log_policy).sum(1).mean()
        loss: Tensor = self.value_weight * (value - minibatch.returns).square().mean() - surrogate - self.entropy_bonus * entropy
        return loss

    def state(self) -> dict[str, Any]:
        """Return networks, optimizer, moments, random state, and the rollout under way."""
        return {
            "net": self.net.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
            "rewards": self.rewards.state(),
            "learning": self._learning,
            "steps": [(*step.actions, step.reward, step.terminated) for step in self._steps],
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from what :meth:`state` returned."""
        self.net.load_state_dict(state["net"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["generator"])
        self.rewards.load_state(state["rewards"])
        self._learning = state["learning"]
        self._steps = [RewardedStep(SampledActions(*parts[:4]), *parts[4:]) for parts in state["steps"]]
