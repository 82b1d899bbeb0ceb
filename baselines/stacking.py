"""``stacking``: the mixture of teachers that predicts the reward labels best, fitted by supervision.

A student that is taught with weights ``w_k(x)`` learns the mixture ``sum_k w_k(x) p_k(y|x)``, so the weights are fitted by the likelihood
of that mixture (:mod:`baselines.mixture`), and not by which teacher is right. Several members propose weights: three formulas that read no
labels, the choice of the router's gate, and four networks. Their shares are fitted by EM on labels that the members did not see (two
folds). After stacked generalization (Wolpert 1992) and the stacking of densities (Smyth and Wolpert 1999); the members and their use for
teaching are ours.

It uses the same labels as policies that are paid with held-out improvement, and no reinforcement learning.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from baselines.mixture import log_likelihoods
from baselines.rule import WEIGHTS, BaseRule
from baselines.stack_members import Instances, Members, fit_shares
from kd_env import spec
from kd_env.distillation.calibration import fit_temperatures
from kd_env.errors import InputError
from kd_env.policies import PolicyBatch, PolicyContext, Range, SearchSpace
from kd_env.policies.context import Examples
from kd_env.randomness import seeded

CLEARLY = 3.0
"""Standard errors by which a difference has to be above 0."""


@dataclass(frozen=True)
class Fit:
    """Members, their shares, and how well the taught mixture answers.

    Attributes:
        members: the members, fitted on all labels.
        shares: their shares, ``[R]``.
        right: 1 where the answer of the taught mixture is the label, by members that did not see the label, ``[n]``.
    """

    members: Members
    shares: Tensor
    right: Tensor


def fit_members(instances: Instances, teacher_logits: Tensor, labels: Tensor, log_likelihood: Tensor, seed: int) -> Fit:
    """Fit the members on each half of the labels, the shares on the other half, and the members again on all labels.

    Args:
        instances: n labelled instances.
        teacher_logits: logits of the teachers as they teach, ``[n, K, C]``.
        labels: class numbers, ``[n]``.
        log_likelihood: what the networks and the shares are fitted to, ``[n, K]``.
        seed: of the halves and of the scorers' first weights.
    """
    right = (teacher_logits.argmax(2) == labels[:, None]).float()
    with seeded(seed):
        halves = torch.randperm(len(labels)).chunk(2)
        weights = []
        for rest, held_out in (halves, halves[::-1]):
            members = Members(instances.take(rest), log_likelihood[rest], right[rest])
            with torch.no_grad():
                weights.append(members(instances.take(held_out)))  # [R, n / 2, K]
        unseen = torch.cat(halves[::-1])
        of_members = torch.cat(weights, 1)  # [R, n, K], of the rows ``unseen``
        shares = fit_shares((of_members * log_likelihood[unseen].exp()).sum(2))
        taught = torch.einsum("r,rnk,nkc->nc", shares, of_members, teacher_logits[unseen].softmax(2).float())
        return Fit(Members(instances, log_likelihood, right), shares, (taught.argmax(1) == labels[unseen]).float())


def clearly_higher(values: Tensor, others: Tensor) -> bool:
    """Return whether the mean of ``values [n]`` is above that of ``others [n]`` by three standard errors of the paired difference."""
    differences = values - others
    return bool(differences.mean() > CLEARLY * differences.std() / len(differences) ** 0.5)


class Stack(nn.Module):
    """Members and their shares.

    They are fitted to the likelihood of the teachers as they are, and again to that of calibrated teachers, whose logits are divided by a
    temperature for each (:func:`~kd_env.distillation.calibration.fit_temperatures`). The second fit is kept if its taught mixture, which is
    of the teachers as they are, answers clearly more often right. It helps where a good teacher is not certain and others are too certain.
    """

    shares: Tensor

    def __init__(self, examples: Examples, seed: int) -> None:
        """Fit both and keep one.

        Raises:
            InputError: there are fewer than 2 labels.
        """
        super().__init__()
        instances, labels = Instances.of(examples.teacher_logits, examples.teacher_features), examples.known_labels()
        if len(labels) < 2:
            raise InputError(f"reward_labels={len(labels)}: stacking fits its members and their shares on different labels; use at least 2")
        logits = examples.teacher_logits
        temperatures = torch.from_numpy(fit_temperatures(logits.cpu().numpy(), labels.cpu().numpy()))
        plain, calibrated = (
            fit_members(instances, logits, labels, log_likelihoods(scaled, labels), seed)
            for scaled in (logits, logits.double() / temperatures.to(logits.device)[:, None])
        )
        self.calibrated = clearly_higher(calibrated.right, plain.right)
        kept = calibrated if self.calibrated else plain
        self.register_buffer("shares", kept.shares)
        self.members = kept.members

    @torch.no_grad()
    def forward(self, instances: Instances) -> Tensor:
        """Return weights, ``[n, K]``."""
        return torch.einsum("r,rnk->nk", self.shares, self.members(instances))


class Stacking(BaseRule):
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
        spec.numbers("stacking", least=0, sharpness=sharpness)
        super().__init__(context, seed)
        self.sharpness = sharpness
        self.stack = Stack(context.reward_examples(), seed)

    def decide(self, batch: PolicyBatch) -> Tensor:
        """Return the weights of the mixture."""
        weights: Tensor = self.stack(Instances.of(batch.teacher_logits, batch.teacher_features))
        if self.sharpness != 1.0:
            weights = (self.sharpness * weights.clamp_min(torch.finfo(weights.dtype).tiny).log()).softmax(1)
        return weights / weights.sum(1, keepdim=True)
