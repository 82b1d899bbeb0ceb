"""``fitnet_mkd``: FitNet-MKD, a plain average of all teachers' responses and hints (as compared by Zhang et al. 2022, arXiv 2201.00007).

The hints are FitNets' (Romero et al. 2015, arXiv 1412.6550) at strength 100, with one map per teacher that learns with the student.

``scale="matched"`` (ours): the strengths of the setting. ``scale="released"``: the code that was published with CA-MKD builds its hint loss
from values without gradient, so no hint is learned; what is left is the plain average of the responses (AVER) with the label at strength 1.
"""

from __future__ import annotations

from torch import Tensor

from baselines.compared_features import HINTS
from baselines.rule import WEIGHTS, BaseRule, uniform
from baselines.scale import Scale, check_scale, scaled
from kd_env.policies import Choice, PolicyBatch, PolicyContext, SearchSpace
from kd_env.types import Decision


class FitNetMKD(BaseRule):
    """Weights of 1/K for responses and hints."""

    paper = "Romero et al. 2015, arXiv 1412.6550"
    env_options = {**WEIGHTS, "knowledge": "response,hint(strength=100)"}
    search_space: SearchSpace = {
        "knowledge": Choice(("response,hint(strength=100)", "response,hint(strength=10)", "response,hint(strength=1)")),
    }

    def __init__(self, context: PolicyContext, seed: int = 0, scale: Scale = "matched") -> None:
        """Take ``scale``, ``matched`` or ``released``."""
        super().__init__(context, seed)
        check_scale(context, "fitnet_mkd", scale)
        self.scale = scale

    def decide(self, batch: PolicyBatch) -> Tensor | Decision:
        """Return weights of 1/K, and as released no hints."""
        if self.scale == "matched":
            return uniform(batch)
        equal = uniform(batch).to(self.context.device, self.context.dtype)
        return scaled(self.context, dict.fromkeys(self.context.terms, equal), self.scale, dict.fromkeys(HINTS, 0.0))
