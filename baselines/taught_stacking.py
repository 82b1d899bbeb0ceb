"""``taught_stacking``: the stacking of the teachers, fitted to the mixture as it is taught.

The base models, their shares and the labels are those of :mod:`baselines.stacking`. The objective differs in two ways
(:class:`baselines.mixture.TaughtMixtureLikelihood`): teachers are at the temperature of distillation, as the student sees them, and the
mixture is raised to a fitted power, since its most likely class matters and not how certain it is. Where teachers are certain to different
degrees, weights that are fitted without the power make up for that. The objective is our own. No reinforcement learning.
"""

from __future__ import annotations

from torch import Tensor

from baselines.rule import WEIGHTS, BaseRule
from baselines.stacking import Stack, sharpened
from kd_env import spec
from kd_env.policies import PolicyBatch, PolicyContext, Range, SearchSpace


class TaughtStacking(BaseRule):
    """Fits once, before the first update, on the reward labels."""

    access = "reward labels"
    learns_from = "reward labels, once"
    env_options = WEIGHTS
    min_teachers = 2
    search_space: SearchSpace = {"sharpness": Range(0.5, 4.0, log=True)}

    def __init__(self, context: PolicyContext, seed: int = 0, sharpness: float = 1.0) -> None:
        """Fit the stack.

        Args:
            context: see :class:`~kd_env.policies.PolicyContext`.
            seed: of the halves and of the scorers' first weights.
            sharpness: weights are raised to this power and normalised.
        """
        spec.numbers("taught_stacking", least=0, sharpness=sharpness)
        super().__init__(context, seed)
        self.sharpness = sharpness
        stack = Stack(context.reward_examples(), seed, context.settings.distillation.temperature)
        self.weights_of = context.once_per_example(stack.of_teachers)

    def decide(self, batch: PolicyBatch) -> Tensor:
        """Return the weights of the mixture."""
        return sharpened(self.weights_of(batch), self.sharpness)
