"""``mtkd_rl_released``: MTKD-RL as its code does it (Yang et al. 2025, AAAI, arXiv 2502.18510; winycg/MTKD-RL, commit 4e2b62a).

Nothing is sampled. All teachers share one reward: minus the loss of the instance before the update under the weights that taught it,
standardised over the mini-batch, clipped to [0, 1]. It is the weight of a binary cross-entropy of the averaged weights to ones. This reward
does not distinguish teachers, and since the weights sum to 1 the optimum of ``-sum_k log w_k`` is 1/K: the agent learns to be uniform.

``scale="matched"`` (ours): that update with the other details of :mod:`agents.mtkd_rl`. ``scale="released"``: label and responses have
strength 1 and hints theirs, whatever the setting's kd_weight; in the first epoch each teacher has weight 1, so the weights sum to K; the
rewards are divided by the sample deviation (n - 1); the agent is trained by SGD at .1, its first layer has no bias, and its state is not
standardised. Hints have strength 5 in the release (``knowledge=response,map_hint(strength=5)``), and the temperature is 4.

Two more details are options, since by default the agent learns after every mini-batch and head and rules have a third of the weights each:
``every=1000`` stores that many mini-batches and then goes through them once, as released also at the end of an epoch, and
``learned_shares=true`` learns the shares, as the published command does (``--dynamic``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from agents.mtkd_rl import MTKDRL, Agent, TaughtStep
from agents.mtkd_state import State, averaged
from baselines.scale import Scale, check_scale, scaled
from kd_env import spec
from kd_env.policies import PolicyContext, SearchSpace
from kd_env.randomness import seeded
from kd_env.types import Decision


def released_loss(weights: Tensor, reward: Tensor) -> Tensor:
    """Return ``mean_bk -r_b log w_bk``: the binary cross-entropy of ``[B, K]`` to ones, weighed by ``[B]``."""
    return -(reward[:, None] * weights.clamp_min(1e-12).log()).mean()


def shared_reward(loss: Tensor, correction: int = 0) -> Tensor:
    """Return ``-loss [B]`` standardised over the mini-batch and clipped to [0, 1]; zero if all losses are equal.

    Args:
        loss: loss of each instance.
        correction: 1 for the sample deviation, 0 for the deviation of the mini-batch.
    """
    centred = loss.mean() - loss
    spread = (centred.square().sum() / max(len(loss) - correction, 1)).sqrt() if correction else centred.square().mean().sqrt()
    return torch.where(spread > 1e-6 * loss.abs().max(), centred / spread.clamp_min(1e-30), 0.0).clamp(0.0, 1.0)


class ReleasedAgent(Agent):
    """The network of the release: no bias in the first layer, and raw states."""

    def __init__(self, num_columns: int, num_teachers: int, names: Sequence[str]) -> None:
        """Make the layers, drawing from torch's global generator."""
        super().__init__(num_columns, num_teachers, names)
        self.body[0] = nn.Linear(num_columns, self.hidden, bias=False)

    def forward(self, columns: Tensor) -> dict[str, Tensor]:
        """Return the logarithms of each head's weights by knowledge type, ``[B, F]`` -> ``[B, K]``."""
        shared = self.body(columns)
        return {name: head(shared).log_softmax(1) for name, head in self.heads.items()}


class MTKDRLReleased(MTKDRL):
    """The update of the published code; with ``scale="released"`` all of its details."""

    search_space: SearchSpace = {"knowledge": MTKDRL.search_space["knowledge"]}

    def __init__(
        self,
        context: PolicyContext,
        seed: int = 0,
        learning_rate: float | None = None,
        scale: Scale = "matched",
        every: int = 1,
        learned_shares: bool = False,
    ) -> None:
        """Make the agent.

        Args:
            learning_rate: 1e-3 (Adam) by default, as released .1 (SGD).
            scale: ``matched`` or ``released``.
            every: number of mini-batches after which the agent learns from them, one after the other.
            learned_shares: whether the shares of head and rules in the weights are learned with the agent.

        Raises:
            InputError: an option is out of range, or the setting does not fit.
        """
        super().__init__(context, seed, 1e-3 if learning_rate is None else learning_rate)
        check_scale(context, "mtkd_rl_released", scale)
        spec.numbers("mtkd_rl_released", least=1, whole=True, every=every)
        spec.one_of("mtkd_rl_released", True, False, learned_shares=learned_shares)
        self.scale, self.every = scale, every
        self.options = {"seed": seed, "learning_rate": learning_rate, "scale": scale, "every": every, "learned_shares": learned_shares}
        if scale == "released":
            first = self.agent.body[0]
            assert isinstance(first, nn.Linear)
            with seeded(seed):
                self.agent = ReleasedAgent(first.in_features, context.num_teachers, tuple(self.agent.heads))
            self.optimizer = torch.optim.SGD(self.agent.parameters(), lr=0.1 if learning_rate is None else learning_rate)
        if learned_shares:
            self.agent.shares.update({name: nn.Parameter(torch.ones(3)) for name in self.agent.heads})
            self.optimizer.add_param_group({"params": list(self.agent.shares.values())})
        self.agent.to(context.device, context.dtype)

    @torch.no_grad()
    def make_decision(self, state: State) -> TaughtStep:
        """Return the decision about a mini-batch, and what the update needs; no teacher is sampled."""
        if self.scale == "released" and self._begins_epoch():
            self._learn_from_stored()
        weights = {name: self.weights(name, log_policy, state) for name, log_policy in self.agent(state.columns).items()}
        student, decision = self.context.student.of_this_run(), self.decision(weights)
        batch = student.observed()
        loss = student.per_example_loss(decision, student.output(), batch)
        return TaughtStep(student, state, {}, decision, student.batch_inputs(), batch, loss)

    def decision(self, weights: dict[str, Tensor]) -> Decision:
        """Return the decision with these weights; as released, each teacher has weight 1 in the first epoch."""
        if self.scale == "matched" or bool(self.context.after_epochs(self.context.batch(), 1).all()):
            return scaled(self.context, weights, self.scale, 1.0)
        num_teachers = self.context.num_teachers
        equal = {name: torch.full_like(values, 1.0 / num_teachers) for name, values in weights.items()}
        return scaled(self.context, equal, self.scale, float(num_teachers))

    @torch.no_grad()
    def reward(self, taken: TaughtStep) -> Tensor:
        """Return the reward ``[B]`` that all teachers share: of the loss before the update, under the weights that taught."""
        assert taken.loss is not None
        return shared_reward(taken.loss, correction=1 if self.scale == "released" else 0)

    def weights(self, name: str, log_policy: Tensor, state: State) -> Tensor:
        """Return the mean of a head and the two rules, ``[B, K]``."""
        shares = self.agent.shares.get(name)
        return averaged(log_policy.exp(), state.rule, state.gaps[name], shares)

    def head_loss(self, name: str, log_policy: Tensor, state: State, sampled: dict[str, Tensor], reward: Tensor) -> Tensor:
        """Return the agent's loss for one head: the cross-entropy of the averaged weights to ones."""
        return released_loss(self.weights(name, log_policy, state), reward)

    def begin_episode(self, learning: bool) -> None:
        """Forget the mini-batches of the previous student."""
        super().begin_episode(learning)
        self._stored: list[tuple[State, Tensor]] = []
        self._epochs = 0  # that have ended

    def learn_from(self, taken: TaughtStep) -> None:
        """Store the mini-batch that was just taught, and learn from the stored ones if there are enough."""
        self._stored.append((taken.state, self.reward(taken)))
        if len(self._stored) >= self.every:
            self._learn_from_stored()

    @torch.enable_grad()
    def _learn_from_stored(self) -> None:
        for state, reward in self._stored:
            self.update_policy(state, {}, reward)
        self._stored = []

    def _begins_epoch(self) -> bool:
        """Return whether the mini-batch about to be taught is the first of an epoch after the first one, and count that epoch."""
        begins = bool(self.context.after_epochs(self.context.batch(), self._epochs + 1).all())
        self._epochs += begins
        return begins

    def state(self) -> dict[str, Any]:
        """Return network, optimizer, random state, the stored mini-batches, and the number of epochs."""
        stored = [{**state._asdict(), "reward": reward} for state, reward in self._stored]
        return {**super().state(), "stored": stored, "epochs": self._epochs}

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from what :meth:`state` returned."""
        super().load_state(state)
        self._stored = [(State(each["columns"], each["rule"], each["gaps"]), each["reward"]) for each in state.get("stored", ())]
        self._epochs = state.get("epochs", 0)
