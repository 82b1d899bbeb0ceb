"""``mtkd_rl`` and ``mtkd_rl_released``: MTKD-RL (Yang et al. 2025, AAAI, arXiv 2502.18510), as in the paper and as in its code.

Both have a linear layer of 128 ReLU units over the states of all teachers (:mod:`agents.mtkd_state`), and a softmax head for each of
responses and hints. The weights that teach are the mean of the head, CA-MKD's rule and a softmax of the gap.

``mtkd_rl``: for each instance and head, one teacher is sampled from the head and takes its place in the mean. After the update the
mini-batch passes through the student once more (counted), and teacher k's reward is ``-L_k``, the loss of the instance if k were its only
teacher, centred and scaled over the teachers of the instance. The agent is trained by REINFORCE on the sampled teachers' rewards.

``mtkd_rl_released``: nothing is sampled. All teachers share one reward: minus the loss of the instance before the update under the weights
that taught it, standardised over the mini-batch, clipped to [0, 1]. It is the weight of a binary cross-entropy of the averaged weights to
ones. This reward does not distinguish teachers, and since the weights sum to 1 the optimum of ``-sum_k log w_k`` is 1/K: the agent learns
to be uniform.

Deviations: the state is standardised by running moments, since the features of different teachers have different scales; the agent learns
after every mini-batch instead of after some hundred; there is no first epoch at uniform weights; the shares of the mean are fixed, not
learned. The strengths of the losses are those of the setting.
"""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor, nn

from agents import saving
from agents.entropy import normalized_entropy
from agents.moments import Standardised
from agents.mtkd_state import State, averaged, state_of
from kd_env.envs.credit import normalize
from kd_env.errors import InputError
from kd_env.policies import Choice, PolicyContext, Range, SearchSpace, Transition
from kd_env.policies.student_view import StudentView
from kd_env.randomness import seeded
from kd_env.types import Batch, Decision, Inputs, Observation


class Agent(nn.Module):
    """A network with a head for each knowledge type on shared units."""

    def __init__(self, num_columns: int, num_teachers: int, names: tuple[str, ...], hidden: int = 128) -> None:
        """Make the layers, drawing from torch's global generator."""
        super().__init__()
        self.body = nn.Sequential(nn.Linear(num_columns, hidden), nn.ReLU())
        self.heads = nn.ModuleDict({name: nn.Linear(hidden, num_teachers) for name in names})
        self.standardise = Standardised(num_columns)

    def forward(self, columns: Tensor) -> dict[str, Tensor]:
        """Return the logarithms of each head's weights by knowledge type, ``[B, F]`` -> ``[B, K]``."""
        shared = self.body(self.standardise(columns))
        return {name: head(shared).log_softmax(1) for name, head in self.heads.items()}


def reinforce_loss(log_policy: Tensor, sampled: Tensor, reward: Tensor) -> Tensor:
    """Return ``-mean_b r_b(a_b) log pi_b(a_b)``, from ``[B, K]``, the sampled teachers ``[B]``, and each teacher's reward ``[B, K]``."""
    of_sampled = sampled[:, None]
    return -(reward.gather(1, of_sampled) * log_policy.gather(1, of_sampled)).mean()


def released_loss(weights: Tensor, reward: Tensor) -> Tensor:
    """Return ``mean_bk -r_b log w_bk``: the binary cross-entropy of ``[B, K]`` to ones, weighed by ``[B]``."""
    return -(reward[:, None] * weights.clamp_min(1e-12).log()).mean()


def shared_reward(loss: Tensor) -> Tensor:
    """Return the released reward: ``-loss [B]`` standardised over the mini-batch and clipped to [0, 1]; zero if all losses are equal."""
    centred = loss.mean() - loss
    spread = centred.square().mean().sqrt()
    return torch.where(spread > 1e-6 * loss.abs().max(), centred / spread.clamp_min(1e-30), 0.0).clamp(0.0, 1.0)


class Taken(NamedTuple):
    """A decision, and what the agent needs to learn from it."""

    student: StudentView  # the student that was taught
    state: State
    sampled: dict[str, Tensor]  # sampled teachers [B] by knowledge type; empty where nothing is sampled
    decision: Decision
    inputs: Inputs  # of the mini-batch
    batch: Batch
    loss: Tensor | None  # released: the loss [B] under the decision before the update


class MTKDRL:
    """Learns while it teaches. The result is the student that the run trains."""

    access = "train labels"
    supports_population = False
    paper = "Yang et al. 2025, arXiv 2502.18510"
    env_options: dict[str, Any] = {"granularity": "instance", "action": "weights", "reward_every": 0, "knowledge": "response,hint"}
    released: ClassVar[bool] = False
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
        name = "mtkd_rl_released" if self.released else "mtkd_rl"
        if context.num_teachers < 2:
            raise InputError(f"policy {name} needs at least 2 teachers, pool {context.pool_name!r} has 1")
        if context.num_students > 1:
            raise InputError(f"policy {name} learns from one student; leave num_students out")
        if "response" not in context.terms:
            raise InputError(f"policy {name} weighs responses; name response in knowledge={context.settings.distillation.knowledge!r}")
        self.context, self.seed, self.options = context, seed, {"seed": seed, "learning_rate": learning_rate}
        names = tuple(kind for kind in ("response", "hint") if kind in context.terms)
        num_columns = sum(context.teacher_widths) + context.num_teachers * (context.num_classes + 3)
        with seeded(seed):
            self.agent = Agent(num_columns, context.num_teachers, names)
        self.agent.to(context.device, context.dtype)
        self.optimizer = torch.optim.Adam(self.agent.parameters(), lr=learning_rate)
        self.generator = torch.Generator().manual_seed(seed)
        self.begin_episode(learning=True)

    def begin_episode(self, learning: bool) -> None:
        """Forget the last mini-batch of the previous student."""
        self._learning = learning
        self._taken: Taken | None = None

    def act(self, observation: Observation) -> Decision:
        """Return the decision about the mini-batch about to be taught."""
        state = state_of(self.context, self.context.batch())
        self._taken = None
        if not state.columns.isfinite().all():  # the student has diverged, and the next step ends its run
            uniform = torch.full_like(state.rule, 1.0 / state.rule.shape[1])
            return self.context.decision(dict.fromkeys(state.gaps, uniform))
        if self._learning:
            self.agent.standardise.adapt(state.columns)
        self._taken = self.take(state)
        return self._taken.decision

    @torch.no_grad()
    def take(self, state: State) -> Taken:
        """Return the decision about a mini-batch, and what the update needs."""
        sampled: dict[str, Tensor] = {}
        weights: dict[str, Tensor] = {}
        for name, log_policy in self.agent(state.columns).items():
            head = log_policy.exp()
            if not self.released:
                sampled[name] = torch.multinomial(head.cpu(), 1, generator=self.generator)[:, 0].to(head.device)
                head = torch.zeros_like(head).scatter_(1, sampled[name][:, None], 1.0)
            weights[name] = averaged(head, state.rule, state.gaps[name])
        student, decision = self.context.student.of_this_run(), self.context.decision(weights)
        batch = student.observed()
        loss = student.per_example_loss(decision, student.output(), batch) if self.released else None
        return Taken(student, state, sampled, decision, student.batch_inputs(), batch, loss)

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
        """Learn from each teacher's loss after the update (released: from the loss before it)."""
        taken, info = self._taken, transition.info.get("final_info", transition.info)
        if taken is None or bool(np.any(info["diverged"])):
            return
        reward = teacher_reward(taken) if taken.loss is None else shared_reward(taken.loss)
        self.follow(taken, reward)

    def follow(self, taken: Taken, reward: Tensor) -> None:
        """Make one update of the agent; ``reward`` has shape ``[B, K]``, released ``[B]``. A reward that is not finite is ignored."""
        if not reward.isfinite().all():
            return
        state, loss = taken.state, torch.zeros_like(reward).sum()
        for name, log_policy in self.agent(state.columns).items():
            if self.released:
                loss = loss + released_loss(averaged(log_policy.exp(), state.rule, state.gaps[name]), reward)
            else:
                loss = loss + reinforce_loss(log_policy, taken.sampled[name], reward)
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

    def save(self, path: str) -> None:
        """Write the agent to a file."""
        saving.save(path, self)

    @classmethod
    def load(cls, path: str, context: PolicyContext) -> Self:
        """Read an agent."""
        return saving.load(path, cls, context)


class MTKDRLReleased(MTKDRL):
    """``mtkd_rl_released``: the update of the published code."""

    released = True


@torch.no_grad()
def teacher_reward(taken: Taken) -> Tensor:
    """Return ``-L_k`` of the mini-batch that was just taught, ``[B, K]``, centred and scaled over K; costs one more forward pass.

    ``L_bk = sum_m s_m L_m(b, k)``, all weight on teacher k. The hard label is the same for all teachers, so centring removes it.
    """
    output = taken.student.forward(taken.inputs)
    total = torch.zeros_like(taken.batch.teacher_logits[:, :, 0])
    for name, strength in taken.decision.strengths.items():
        if name != "label":
            total = total + strength * taken.student.per_teacher_loss(name, output, taken.batch)
    return normalize(-total)
