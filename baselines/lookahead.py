"""``lookahead``: the greedy use of first-order credit. Our own; nothing is learned and nothing is explored.

    r_bk = <grad CE_reward, grad tau^2 KL(p_k || q)_b>;    w_bk = softmax_k(sharpness * r_bk normalised over k)

r_bk is, to first order, how much a step on instance b from teacher k lowers the held-out loss (:mod:`kd_env.envs.credit`). It is computed
before the weights are chosen and costs one forward-mode pass per mini-batch, and a held-out gradient every ``credit_refresh`` updates; both
are counted. With several knowledge types it is the sum over them, each at its strength. The closest prior work, Differentiable Data
Selection (Wang et al. 2020, arXiv 1911.10088), weighs data and learns the weights.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from baselines.rule import BaseRule
from kd_env import spec
from kd_env.envs.credit_scale import normalize
from kd_env.policies import PolicyBatch, PolicyContext, Range, SearchSpace


def weights(credit: Tensor, sharpness: float) -> Tensor:
    """Return weights, credit ``[B, K]`` -> ``[B, K]``, rows on the simplex; at infinite sharpness all weight is on the largest credit."""
    normalized = normalize(credit)
    if math.isinf(sharpness):
        largest = (normalized == normalized.amax(1, keepdim=True)).to(credit.dtype)
        return largest / largest.sum(1, keepdim=True)
    return (sharpness * normalized).softmax(1)


class Lookahead(BaseRule):
    """Reads the gradient of the loss on the reward labels at every update."""

    supports_population = False
    access = "reward labels"
    search_space: SearchSpace = {"sharpness": Range(1.0, 10.0, log=True)}

    def __init__(self, context: PolicyContext, seed: int = 0, sharpness: float = 3.0, greedy: bool = False) -> None:
        """Take the sharpness of the weights.

        Args:
            sharpness: factor of the normalised credit in the softmax, at least 0.
            greedy: whether to put all weight on the largest credit, the limit of infinite sharpness.
        """
        super().__init__(context, seed)
        spec.numbers("lookahead", least=0, sharpness=sharpness)
        spec.one_of("lookahead", True, False, greedy=greedy)
        self.sharpness = math.inf if greedy else float(sharpness)

    def decide(self, batch: PolicyBatch) -> Tensor:
        """Return :func:`weights` of the first-order credit of the mini-batch."""
        terms = self.context.terms
        credit = self.context.credit(tuple(terms))
        return weights(torch.stack([term.strength * credit[name] for name, term in terms.items()]).sum(0), self.sharpness)
