"""``mtkd_rl``: MTKD-RL as in the paper (Yang et al. 2025, AAAI, arXiv 2502.18510). :mod:`agents.mtkd_rl_released` follows its code.

The agent has a linear layer of 128 ReLU units over the states of all teachers (:mod:`agents.mtkd_state`), and a softmax head for each of
responses and hints. The weights that teach are the mean of the head, CA-MKD's rule and a softmax of the gap.

For each instance and head, one teacher is sampled, and its one-hot vector replaces the weights of the head in the mean. After the update
the mini-batch passes through the student once more (counted), and teacher k's reward is ``-L_k``, the loss of the instance if k were its
only teacher, centred and scaled over the teachers of the instance. The agent is trained by REINFORCE on the sampled teachers' rewards.

Deviations: the state is standardised by running moments, since the features of different teachers have different scales; the agent learns
after every mini-batch instead of after some hundred; there is no first epoch at equal weights; the shares of the mean are fixed, not
learned. The strengths of the losses are those of the setting.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from agents.entropy import normalized_entropy
from agents.moments import Standardised
from agents.mtkd_state import State, averaged, state_of
from agents.saving import SavedAgent
from baselines.compared_features import hint_of
from kd_env import spec
from kd_env.envs.credit_scale import normalize
from kd_env.errors import InputError
from kd_env.policies import Choice, PolicyContext, Range, SearchSpace, Transition
from kd_env.policies.student_view import StudentView
from kd_env.randomness import seeded
from kd_env.types import Batch, Decision, Inputs, Observation


class Agent(nn.Module):
    """A network with a head for each knowledge type on shared units."""

    hidden = 128

    def __init__(self, num_columns: int, num_teachers: int, names: Sequence[str]) -> None:
        """Make the layers, drawing from torch's global generator."""
        super().__init__()
        self.body = nn.Sequential(nn.Linear(num_columns, self.hidden), nn.ReLU())
        self.heads = nn.ModuleDict({name: nn.Linear(self.hidden, num_teachers) for name in names})
        self.standardise = Standardised(num_columns)
        self.shares = nn.ParameterDict()  # by knowledge type, shares of head and rules in the weights, where they are learned

    def forward(self, columns: Tensor) -> dict[str, Tensor]:
        """Return the logarithms of each head's weights by knowledge type, ``[B, F]`` -> ``[B, K]``."""
        shared = self.body(self.standardise(columns))
        return {name: head(shared).log_softmax(1) for name, head in self.heads.items()}


def reinforce_loss(log_policy: Tensor, sampled: Tensor, reward: Tensor) -> Tensor:
    """Return ``-mean_b r_b(a_b) log pi_b(a_b)``, from ``[B, K]``, the sampled teachers ``[B]``, and each teacher's reward ``[B, K]``."""
    of_sampled = sampled[:, None]
    return -(reward.gather(1, of_sampled) * log_policy.gather(1, of_sampled)).mean()


class TaughtStep(NamedTuple):
    """A decision, and what the agent needs to learn from it."""

    student: StudentView  # the student that was taught
    state: State
    sampled: dict[str, Tensor]  # sampled teachers [B] by knowledge type; empty where nothing is sampled
    decision: Decision
    inputs: Inputs  # of the mini-batch
    batch: Batch
    loss: Tensor | None = None  # [B], under the decision before the update; of mtkd_rl_released


class MTKDRL(SavedAgent):
    """Learns while it teaches. The result is the student that the run trains."""

    access = "train labels"
    supports_population = False
    paper = "Yang et al. 2025, arXiv 2502.18510"
    env_options: dict[str, Any] = {"granularity": "instance", "action": "weights", "reward_every": 0, "knowledge": "response,hint"}
    search_space: SearchSpace = {
        "learning_rate": Range(1e-4, 1e-2, log=True),
        "knowledge": Choice(("response,hint", "response,hint(strength=5)", "response,hint(strength=50)")),
    }

    def __init__(self, context: PolicyContext, seed: int = 0, learning_rate: float = 1e-3) -> None:
        """Make the agent.

        Args:
            learning_rate: of Adam.

        Raises:
            InputError: the pool has one teacher, the setting has no responses, or the student has peers.
        """
        name = context.name
        if context.num_teachers < 2:
            raise InputError(
                f"policy {name!r} needs at least 2 teachers, pool {context.pool_name!r} has 1; name more --teachers, or leave it out"
            )
        if context.num_students > 1:
            raise InputError(f"policy {name} learns from one student; leave num_students out")
        if "response" not in context.terms:
            raise InputError(f"policy {name} weighs responses; name response in knowledge={context.settings.distillation.knowledge!r}")
        spec.numbers(name, above=0, learning_rate=learning_rate)
        self.context, self.seed = context, seed
        self.options: dict[str, Any] = {"seed": seed, "learning_rate": learning_rate}
        hint = hint_of(context)
        names = ("response",) if hint is None else ("response", hint)
        num_columns = sum(context.teacher_widths) + context.num_teachers * (context.num_classes + 3)
        with seeded(seed):
            self.agent = Agent(num_columns, context.num_teachers, names)
        self.agent.to(context.device, context.dtype)
        self.optimizer: torch.optim.Optimizer = torch.optim.Adam(self.agent.parameters(), lr=learning_rate)
        self.generator = torch.Generator().manual_seed(seed)
        self.begin_episode(learning=True)

    def begin_episode(self, learning: bool) -> None:
        """Forget the last mini-batch of the previous student."""
        self._learning = learning
        self._taken: TaughtStep | None = None

    def act(self, observation: Observation) -> Decision:
        """Return the decision about the mini-batch about to be taught."""
        state = state_of(self.context, self.context.batch())
        self._taken = None
        if not state.columns.isfinite().all():  # the student has diverged, and the next step ends its run
            uniform = torch.full_like(state.rule, 1.0 / state.rule.shape[1])
            return self.context.decision(dict.fromkeys(state.gaps, uniform))
        if self._learning:
            self.agent.standardise.adapt(state.columns)
        self._taken = self.make_decision(state)
        return self._taken.decision

    @torch.no_grad()
    def make_decision(self, state: State) -> TaughtStep:
        """Return the decision about a mini-batch, and what the update needs."""
        sampled: dict[str, Tensor] = {}
        weights: dict[str, Tensor] = {}
        for name, log_policy in self.agent(state.columns).items():
            head = log_policy.exp()
            sampled[name] = torch.multinomial(head.cpu(), 1, generator=self.generator)[:, 0].to(head.device)
            one_teacher = torch.zeros_like(head).scatter_(1, sampled[name][:, None], 1.0)
            weights[name] = averaged(one_teacher, state.rule, state.gaps[name])
        student = self.context.student.of_this_run()
        return TaughtStep(student, state, sampled, self.context.decision(weights), student.batch_inputs(), student.observed())

    def selection_entropy(self, observation: Observation) -> np.ndarray | None:
        """Return the mean entropy of the heads over ln K, ``[num_envs]``."""
        state = state_of(self.context, self.context.batch())
        if not state.columns.isfinite().all():
            return None
        with torch.no_grad():
            heads = self.agent(state.columns).values()
        mean: np.ndarray = np.mean([normalized_entropy(head.exp().cpu().numpy()) for head in heads], axis=0)
        return mean

    def update(self, transition: Transition) -> None:
        """Learn from the reward of the mini-batch that was taught, unless the student has diverged."""
        taken, info = self._taken, transition.info.get("final_info", transition.info)
        if taken is not None and not bool(np.any(info["diverged"])):
            self.learn_from(taken)

    def learn_from(self, taken: TaughtStep) -> None:
        """Learn from the mini-batch that was just taught."""
        self.update_policy(taken.state, taken.sampled, self.reward(taken))

    def reward(self, taken: TaughtStep) -> Tensor:
        """Return the reward of each teacher for the update that was just made, ``[B, K]``."""
        return teacher_reward(taken)

    def head_loss(self, name: str, log_policy: Tensor, state: State, sampled: dict[str, Tensor], reward: Tensor) -> Tensor:
        """Return the agent's loss for the head of the knowledge type ``name``."""
        return reinforce_loss(log_policy, sampled[name], reward)

    def update_policy(self, state: State, sampled: dict[str, Tensor], reward: Tensor) -> None:
        """Make one update of the agent along :meth:`reward`. A reward that is not finite is ignored.

        Args:
            state: state of a mini-batch that was taught.
            sampled: teachers that were sampled for it, ``[B]`` by knowledge type.
            reward: its reward.
        """
        if not reward.isfinite().all():
            return
        loss = torch.zeros_like(reward).sum()
        for name, log_policy in self.agent(state.columns).items():
            loss = loss + self.head_loss(name, log_policy, state, sampled, reward)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()

    def state(self) -> dict[str, Any]:
        """Return network, optimizer and random state."""
        return {
            "agent": self.agent.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
            "learning": self._learning,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from what :meth:`state` returned."""
        self.agent.load_state_dict(state["agent"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["generator"])
        self._learning = state["learning"]


@torch.no_grad()
def teacher_reward(taken: TaughtStep) -> Tensor:
    """Return ``-L_k`` of the mini-batch that was just taught, ``[B, K]``, centred and scaled over K; costs one more forward pass.

    ``L_bk = sum_m s_m L_m(b, k)``, all weight on teacher k. The hard label is the same for all teachers, so centring removes it.
    """
    output = taken.student.forward(taken.inputs)
    total = torch.zeros_like(taken.batch.teacher_logits[:, :, 0])
    for name, strength in taken.decision.strengths.items():
        if name != "label":
            total = total + strength * taken.student.per_teacher_loss(name, output, taken.batch)
    return normalize(-total)
