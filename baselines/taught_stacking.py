"""``taught_stacking``: the stacking of the teachers, fitted to the mixture as it is taught.

The base models, their shares and the labels are those of :mod:`baselines.stacking`. The objective differs in two ways
(:class:`baselines.mixture.TaughtMixtureLikelihood`): teachers are at the temperature of distillation, as the student sees them, and the
mixture is raised to a fitted power, since its most likely class matters and not how certain it is. Where teachers are certain to different
degrees, weights that are fitted without the power make up for that. The objective is our own. No reinforcement learning.
"""

from __future__ import annotations

from baselines.stacking import Stack, Stacking
from kd_env.policies import PolicyContext


class TaughtStacking(Stacking):
    """Fits once, before the first update, on the reward labels."""

    name = "taught_stacking"

    def fitted_stack(self, context: PolicyContext, seed: int) -> Stack:
        """Return the stack, fitted to the mixture at the temperature of distillation."""
        return Stack(context.reward_examples(), seed, context.settings.distillation.temperature)
