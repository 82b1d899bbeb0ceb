"""``mtkd_rl_released``: MTKD-RL as its code does it (Yang et al. 2025, AAAI, arXiv 2502.18510; winycg/MTKD-RL, commit 4e2b62a).

Nothing is sampled. All teachers share one reward: minus the loss of the instance before the update under the weights that taught it,
standardised over the mini-batch, clipped to [0, 1]. It is the weight of a binary cross-entropy of the averaged weights to ones. This reward
does not distinguish teachers, and since the weights sum to 1 the optimum of ``-sum_k log w_k`` is 1/K: the agent learns to be uniform.

``scale="matched"`` (ours): that update with the other details of :mod:`agents.mtkd_rl`. ``scale="released"``: label and responses have
strength 1 and hints theirs, whatever the setting's kd_weight; in the first epoch each teacher has weight 1, so the weights sum to K; the
rewards are divided by the sample deviation (n - 1); the agent is trained by SGD at .1, its first layer has no bias, and its state is not
standardised. Hints have strength 5 in the release (``knowledge=response,hint(strength=5)``), and the temperature is 4.

Deviations of both: the agent learns after every mini-batch; the release stores some hundred and then goes through them once.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from agents.mtkd_rl import MTKDRL, Agent, Taken
from agents.mtkd_state import State, averaged
from baselines.scale import Scale, check_scale, scaled
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

    def __init__(self, context: PolicyContext, seed: int = 0, learning_rate: float | None = None, scale: Scale = "matched") -> None:
        """Make the agent.

        Args:
            learning_rate: 1e-3 (Adam) by default, as released .1 (SGD).
            scale: ``matched`` or ``released``.
        """
        super().__init__(context, seed, 1e-3 if learning_rate is None else learning_rate)
        check_scale(context, "mtkd_rl_released", scale)
        self.scale = scale
        self.options = {"seed": seed, "learning_rate": learning_rate, "scale": scale}
        if scale == "released":
            first = self.agent.body[0]
            assert isinstance(first, nn.Linear)
            with seeded(seed):
                self.agent = ReleasedAgent(first.in_features, context.num_teachers, tuple(self.agent.heads))
            self.agent.to(context.device, context.dtype)
            self.optimizer = torch.optim.SGD(self.agent.parameters(), lr=0.1 if learning_rate is None else learning_rate)

    @torch.no_grad()
    def take(self, state: State) -> Taken:
        """Return the decision about a mini-batch, and what the update needs; no teacher is sampled."""
        heads = self.agent(state.columns).items()
        weights = {name: averaged(log_policy.exp(), state.rule, state.gaps[name]) for name, log_policy in heads}
        student, decision = self.context.student.of_this_run(), self.decision(weights)
        batch = student.observed()
        loss = student.per_example_loss(decision, student.output(), batch)
        return Taken(student, state, {}, decision, student.batch_inputs(), batch, loss)

    def decision(self, weights: dict[str, Tensor]) -> Decision:
        """Return the decision with these weights; as released, each teacher has weight 1 in the first epoch."""
        if self.scale == "matched" or bool(self.context.after_epochs(self.context.batch(), 1).all()):
            return scaled(self.context, weights, self.scale, 1.0)
        num_teachers = self.context.num_teachers
        equal = {name: torch.full_like(values, 1.0 / num_teachers) for name, values in weights.items()}
        return scaled(self.context, equal, self.scale, float(num_teachers))

    @torch.no_grad()
    def reward(self, taken: Taken) -> Tensor:
        """Return the reward ``[B]`` that all teachers share: of the loss before the update, under the weights that taught."""
        assert taken.loss is not None
        return shared_reward(taken.loss, correction=1 if self.scale == "released" else 0)

    def head_loss(self, name: str, log_policy: Tensor, taken: Taken, reward: Tensor) -> Tensor:
        """Return the agent's loss for one head: the cross-entropy of the averaged weights to ones."""
        return released_loss(averaged(log_policy.exp(), taken.state.rule, taken.state.gaps[name]), reward)
