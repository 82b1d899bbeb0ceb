"""``akd`` and ``akd_hard``: knowledge selection by actor-critic, AKD (Wang et al. 2022, Findings of EMNLP, arXiv 2302.00444).

State: ``[N_S(h_S); N_T(h_T)]``, two-layer MLPs of the student's and the teachers' last layers, averaged over the mini-batch. The actor
mu(s) and the critic Q(s, a) are three-layer MLPs. The critic follows ``r + gamma Q'(s', mu'(s'))``, the actor the gradient of Q(s, mu(s))
(deterministic policy gradient), both with slowly moving target networks. One action teaches a phase of mini-batches (multi-phase
training); r is the decrease of the held-out loss over the phase plus the paper's exploration bonus. ``soft`` actions are the strengths of
the knowledge types; of ``hard`` ones a type is on if its strength is above 1/2.

Schedule: ``training_episodes`` students are taught while the agent learns; then the actor alone teaches one more student, which is the
product. The cost of all students is counted.

Deviations: what the paper leaves open is ours: widths, rates, replay memory, Gaussian noise on the actor's output, rewards divided by
their standard deviation in memory. The state nets learn with the critic alone. For hard actions the critic receives thresholded
strengths, and the actor's gradient passes straight through the threshold.
"""

from __future__ import annotations

import copy
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from agents.saving import SavedAgent
from kd_env import spec
from kd_env.policies import PolicyContext, Range, SearchSpace, Transition
from kd_env.randomness import seeded
from kd_env.types import Observation


class ActorCritic(nn.Module):
    """State nets, actor and critic; reads the ``cls`` observation, blocks ``[rows, F]``."""

    def __init__(self, student_width: int, teachers_width: int, num_types: int, hidden: int) -> None:
        """Make the nets for M knowledge types."""
        super().__init__()
        self.of_student, self.of_teachers = _mlp(student_width, hidden, hidden), _mlp(teachers_width, hidden, hidden)
        self.actor = _mlp(2 * hidden, hidden, hidden, num_types)
        self.critic = _mlp(2 * hidden + num_types, hidden, hidden, 1)

    def state(self, student: Tensor, teachers: Tensor) -> Tensor:
        """Return the state, ``[rows, D]``, ``[rows, D_1 + ... + D_K]`` -> ``[rows, 2 * hidden]``."""
        return torch.cat([self.of_student(student), self.of_teachers(teachers)], 1)

    def act(self, state: Tensor) -> Tensor:
        """Return strengths in [0, 1], ``[rows, M]``."""
        return torch.sigmoid(self.actor(state))

    def value(self, state: Tensor, action: Tensor) -> Tensor:
        """Return Q, ``[rows]``."""
        value: Tensor = self.critic(torch.cat([state, action], 1)).squeeze(1)
        return value


class KnowledgeActorCritic(SavedAgent):
    """Learns while it teaches some students, then teaches the final student."""

    access = "reward scalar"
    learns_from = "the reward, over several students"
    paper = "Wang et al. 2022, arXiv 2302.00444"
    environment = "kd_env/KnowledgeSelection-v0"
    env_options: dict[str, Any] = {
        "action": "soft",
        "granularity": "batch",
        "observation": "cls",
        "updates_per_phase": 10,
        "exploration_bonus": 0.001,
    }
    search_space: SearchSpace = {"learning_rate": Range(1e-4, 1e-2, log=True), "noise": Range(0.05, 0.5, log=True)}

    def __init__(
        self,
        context: PolicyContext,
        seed: int = 0,
        training_episodes: int = 4,
        learning_rate: float = 1e-3,
        discount: float = 0.9,
        noise: float = 0.2,
        target_rate: float = 0.01,
        hidden: int = 64,
        batch_size: int = 64,
    ) -> None:
        """Make actor, critic and their target networks.

        Args:
            training_episodes: number of students taught before the one that counts.
            discount: gamma, per phase.
            noise: standard deviation of the Gaussian noise on the actor's strengths while it learns.
            target_rate: how far the target networks move towards the networks after each phase, in [0, 1].
            batch_size: number of remembered phases in one update.
        """
        spec.numbers("akd", least=0, whole=True, training_episodes=training_episodes)
        spec.numbers("akd", least=1, whole=True, hidden=hidden, batch_size=batch_size)
        spec.numbers("akd", above=0, learning_rate=learning_rate)
        spec.numbers("akd", least=0, noise=noise)
        spec.numbers("akd", least=0, most=1, discount=discount, target_rate=target_rate)
        self.seed, self.training_episodes, self.discount, self.noise = seed, training_episodes, discount, noise
        self.target_rate, self.batch_size = target_rate, batch_size
        self.options = {
            "seed": seed,
            "training_episodes": training_episodes,
            "learning_rate": learning_rate,
            "discount": discount,
            "noise": noise,
            "target_rate": target_rate,
            "hidden": hidden,
            "batch_size": batch_size,
        }
        self.hard = context.settings.interface.action == "hard"
        self.learning = False
        num_types = context.action.size
        with seeded(seed):
            self.nets = ActorCritic(context.columns["student"], context.columns["teachers"], num_types, hidden)
        self.targets = copy.deepcopy(self.nets).requires_grad_(False)
        others = [value for name, value in self.nets.named_parameters() if not name.startswith("actor")]
        self.actor_optimizer = torch.optim.Adam(self.nets.actor.parameters(), lr=learning_rate)
        self.critic_optimizer = torch.optim.Adam(others, lr=learning_rate)
        self.rng = np.random.default_rng(seed)
        self.memory: list[tuple[np.ndarray, ...]] = []
        self._taken_strengths = np.zeros((0, num_types))

    def begin_episode(self, learning: bool) -> None:
        """Explore while ``learning``, and not after."""
        self.learning = learning

    def act(self, observation: Observation) -> np.ndarray:
        """Return the actor's action for every student, with noise while it learns."""
        strengths = self._strengths(observation)
        if self.learning:
            strengths = np.clip(strengths + self.noise * self.rng.standard_normal(strengths.shape), 0.0, 1.0)
        self._taken_strengths = strengths
        return self._action(strengths)

    def update(self, transition: Transition) -> None:
        """Remember the phase, and make one update of actor and critic."""
        strengths = self._taken_strengths
        executed = (strengths > 0.5).astype(np.float64) if self.hard else strengths
        self._remember(transition, executed)
        self._learn()

    def state(self) -> dict[str, Any]:
        """Return networks, targets, optimizers, replay memory, random state, and the strengths that were last acted on."""
        return {
            "nets": self.nets.state_dict(),
            "targets": self.targets.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in (self.actor_optimizer, self.critic_optimizer)],
            "memory": [np.stack(column) for column in zip(*self.memory, strict=True)],
            "rng": self.rng.bit_generator.state,
            "learning": self.learning,
            "taken_strengths": self._taken_strengths,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from what :meth:`state` returned."""
        self.nets.load_state_dict(state["nets"])
        self.targets.load_state_dict(state["targets"])
        for optimizer, content in zip((self.actor_optimizer, self.critic_optimizer), state["optimizers"], strict=True):
            optimizer.load_state_dict(content)
        self.memory = list(zip(*state["memory"], strict=True))
        self.rng.bit_generator.state = state["rng"]
        self.learning, self._taken_strengths = state["learning"], state["taken_strengths"]

    @torch.no_grad()
    def _strengths(self, observation: Observation) -> np.ndarray:
        state = self.nets.state(torch.from_numpy(observation["student"]), torch.from_numpy(observation["teachers"]))
        strengths: np.ndarray = self.nets.act(state).numpy()
        return strengths

    def _action(self, strengths: np.ndarray) -> np.ndarray:
        return (strengths > 0.5).astype(np.int8) if self.hard else (2.0 * strengths - 1.0).astype(np.float32)

    def _remember(self, transition: Transition, strengths: np.ndarray) -> None:
        before, after = transition.observation, transition.next_observation
        rows = (
            before["student"],
            before["teachers"],
            strengths,
            transition.reward,
            after["student"],
            after["teachers"],
            transition.terminated,
        )
        self.memory += zip(*rows, strict=True)

    def _learn(self) -> None:
        """Make one update of critic and actor on remembered phases, and move their targets."""
        chosen = [self.memory[i] for i in self.rng.integers(len(self.memory), size=self.batch_size)]
        columns = [torch.from_numpy(np.stack(column)).float() for column in zip(*chosen, strict=True)]
        student, teachers, action, reward, next_student, next_teachers, over = columns
        spread = float(np.std([phase[3] for phase in self.memory]))
        with torch.no_grad():
            following = self.targets.state(next_student, next_teachers)
            later = self.targets.value(following, self._as_executed(self.targets.act(following)))
            target_value = (reward / spread if spread > 0.0 else reward) + self.discount * (1.0 - over) * later
        state = self.nets.state(student, teachers)
        _step(self.critic_optimizer, (self.nets.value(state, action) - target_value).square().mean())
        state = self.nets.state(student, teachers).detach()
        _step(self.actor_optimizer, -self.nets.value(state, self._as_executed(self.nets.act(state))).mean())
        for target, value in zip(self.targets.parameters(), self.nets.parameters(), strict=True):
            target.lerp_(value.detach(), self.target_rate)

    def _as_executed(self, strengths: Tensor) -> Tensor:
        """Return ``strengths [rows, M]`` as the critic receives them: of hard actions 0 or 1, with the gradient of the strengths."""
        return (strengths > 0.5).to(strengths) + strengths - strengths.detach() if self.hard else strengths


def _step(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()


class HardKnowledgeActorCritic(KnowledgeActorCritic):
    """``akd_hard``: each knowledge type is on or off."""

    env_options = {**KnowledgeActorCritic.env_options, "action": "hard"}


def _mlp(*widths: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers[:-1])
