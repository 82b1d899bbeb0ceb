"""``stacking``: the mixture of teachers that predicts the reward labels best, fitted by supervision.

A student that is taught with weights ``w_k(x)`` learns the mixture ``sum_k w_k(x) p_k(y|x)``, so the weights are fitted to
maximise the likelihood of the labels under that mixture (:mod:`baselines.mixture`). Several base models propose weights: three formulas
that read no labels, the choice of the router's gating network, and four networks. Their shares are fitted by EM on labels that the base
models did not see (two halves). After stacked generalization (Wolpert 1992) and the stacking of densities (Smyth and Wolpert 1999). The
base models and their use for teaching are ours.

It uses the same labels as policies that are paid with held-out improvement, and no reinforcement learning.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor, nn

from baselines.gating import GatingNetwork, fit, gating_inputs
from baselines.mixture import MixtureLikelihood, TaughtMixtureLikelihood, density, taught
from baselines.rule import WEIGHTS, BaseRule, choice
from baselines.scorer import Scorer, scorer_columns
from kd_env import spec
from kd_env.errors import InputError
from kd_env.policies import PolicyBatch, PolicyContext, Range, SearchSpace
from kd_env.policies.examples import Examples
from kd_env.randomness import seeded

ENTROPY_TEMPERATURE = 0.1

Inputs = Literal["", "outputs", "outputs and features"]
NETWORKS: tuple[tuple[Inputs, bool, float], ...] = (
    ("", True, 1e-2),
    ("outputs", True, 1e-2),
    ("outputs and features", True, 1e-2),
    ("outputs and features", False, 1e-3),
)
"""The fitted base models: what the linear gating network reads, whether a scorer is added, and the ridge penalty."""


@dataclass(frozen=True)
class Instances:
    """What the base models read of n instances."""

    outputs: Tensor  # [n, K * C], log-probabilities
    features: tuple[Tensor, ...]  # K x [n, D_k]
    columns: Tensor  # [n, K, 9]

    @classmethod
    def of(cls, teacher_logits: Tensor, teacher_features: Sequence[Tensor]) -> Instances:
        """Read ``teacher_logits [n, K, C]`` and ``teacher_features``, K x ``[n, D_k]``."""
        features = tuple(each.float().cpu() for each in teacher_features)
        return cls(gating_inputs(teacher_logits).float().cpu(), features, scorer_columns(teacher_logits.cpu()))

    @cached_property
    def outputs_and_features(self) -> Tensor:
        """Log-probabilities and features side by side, ``[n, K * C + D_1 + ... + D_K]``."""
        return torch.cat([self.outputs, *self.features], 1)

    def take(self, rows: Tensor) -> Instances:
        """Return some of the instances."""
        return Instances(self.outputs[rows], tuple(each[rows] for each in self.features), self.columns[rows])

    def inputs(self, name: Inputs) -> Tensor:
        """Return the inputs of a linear gating network, ``[n, inputs]``."""
        return self.outputs_and_features if name == "outputs and features" else self.outputs


def uniform(instances: Instances) -> Tensor:
    """Weigh all teachers equally."""
    return torch.full_like(instances.columns[:, :, 0], 1.0 / instances.columns.shape[1])


def most_confident(instances: Instances) -> Tensor:
    """Choose the teacher with the largest probability; the first one where several are above 1 - 1e-6."""
    confidence = instances.columns[:, :, 0]
    return choice(confidence.argmax(1), confidence.shape[1])


def low_entropy(instances: Instances) -> Tensor:
    """Prefer teachers with a low entropy: ``softmax(-entropy / (0.1 ln C))``."""
    return (-instances.columns[:, :, 1] / ENTROPY_TEMPERATURE).softmax(1)


class LinearGating(nn.Module):
    """A linear function of standardised inputs, which starts at 0."""

    mean: Tensor
    scale: Tensor

    def __init__(self, inputs: Tensor, num_teachers: int) -> None:
        """Standardise by ``inputs [n, columns]``."""
        super().__init__()
        self.register_buffer("mean", inputs.mean(0))
        self.register_buffer("scale", inputs.std(0, correction=0) + 1e-3)
        self.linear = nn.Linear(inputs.shape[1], num_teachers)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return logits, ``[n, columns]`` -> ``[n, K]``."""
        logits: Tensor = self.linear((inputs - self.mean) / self.scale)
        return logits


class Network(nn.Module):
    """Weights by the softmax of a linear gating network, of a scorer, or of their sum. They start equal."""

    def __init__(self, instances: Instances, inputs: Inputs, scorer: bool) -> None:
        """Make the parts, standardised by ``instances``."""
        super().__init__()
        self.inputs, num_teachers = inputs, instances.columns.shape[1]
        self.gate = LinearGating(instances.inputs(inputs), num_teachers) if inputs else None
        self.scorer = Scorer(num_teachers) if scorer else None
        if self.scorer is not None:
            self.scorer.standardise(instances.columns)

    def log_weights(self, instances: Instances) -> Tensor:
        """Return logarithms of the weights, ``[n, K]``."""
        logits = torch.zeros(instances.columns.shape[:2])
        if self.gate is not None:
            logits = logits + self.gate(instances.inputs(self.inputs))
        if self.scorer is not None:
            logits = logits + self.scorer(instances.columns)
        return logits.log_softmax(1)

    def forward(self, instances: Instances) -> Tensor:
        """Return weights, ``[n, K]``."""
        return self.log_weights(instances).exp()


def fitted(network: Network, instances: Instances, objective: MixtureLikelihood | TaughtMixtureLikelihood, ridge: float) -> Network:
    """Fit a network to the objective of labelled instances and return it."""
    objective.fit(network.parameters(), lambda: network.log_weights(instances), ridge)
    return network


class BaseModels(nn.Module):
    """All base models, fitted on labelled instances."""

    def __init__(self, instances: Instances, objective: MixtureLikelihood | TaughtMixtureLikelihood, right: Tensor) -> None:
        """Fit the networks, and the router's gating network.

        Args:
            instances: n labelled instances.
            objective: objective of the networks on these instances.
            right: 1 where a teacher's answer is the label, ``[n, K]``.
        """
        super().__init__()
        inputs = instances.inputs("outputs and features")
        self.router = GatingNetwork(inputs.shape[1], right.shape[1])
        fit(self.router, inputs, right)
        networks = [fitted(Network(instances, inputs, scorer), instances, objective, ridge) for inputs, scorer, ridge in NETWORKS]
        self.networks = nn.ModuleList(networks)

    def forward(self, instances: Instances) -> Tensor:
        """Return the weights of each base model, ``[R, n, K]``."""
        routed = self.router(instances.inputs("outputs and features"))
        formulas = [uniform(instances), most_confident(instances), low_entropy(instances), choice(routed.argmax(1), routed.shape[1])]
        return torch.stack([*formulas, *(network(instances) for network in self.networks)])


class Stack(nn.Module):
    """Base models and their shares."""

    shares: Tensor

    def __init__(self, examples: Examples, seed: int, temperature: float | None = None) -> None:
        """Fit the base models on each half of the labels, the shares on the other half, and the base models again on all labels.

        Args:
            examples: teachers' outputs and labels.
            seed: of the halves and of the scorers' first weights.
            temperature: temperature of distillation, for the objective of the taught mixture; ``None`` for its density.

        Raises:
            InputError: there are fewer than 2 labels.
        """
        super().__init__()
        instances, labels = Instances.of(examples.teacher_logits, examples.teacher_features), examples.known_labels()
        if len(labels) < 2:
            raise InputError(f"reward_labels={len(labels)}: stacking fits base models and their shares on different labels; use at least 2")
        logits = examples.teacher_logits
        objective = density(logits, labels) if temperature is None else taught(logits, labels, temperature)
        right = (logits.argmax(2) == labels[:, None]).float()
        with seeded(seed):
            halves = torch.randperm(len(labels)).chunk(2)
            weights = []
            for rest, held_out in (halves, halves[::-1]):
                models = BaseModels(instances.take(rest), objective.take(rest), right[rest])
                with torch.no_grad():
                    weights.append(models(instances.take(held_out)))  # [R, n / 2, K]
            self.register_buffer("shares", objective.take(torch.cat(halves[::-1])).shares(torch.cat(weights, 1)))
            self.members = BaseModels(instances, objective, right)

    @torch.no_grad()
    def forward(self, instances: Instances) -> Tensor:
        """Return weights, ``[n, K]``."""
        return torch.einsum("r,rnk->nk", self.shares, self.members(instances))

    def of_teachers(self, teacher_logits: Tensor, teacher_features: Sequence[Tensor]) -> Tensor:
        """Return weights ``[n, K]`` for ``teacher_logits [n, K, C]`` and ``teacher_features``, K x ``[n, D_k]``."""
        weights: Tensor = self(Instances.of(teacher_logits, teacher_features))
        return weights


class Stacking(BaseRule):
    """Fits once, before the first update, on the reward labels."""

    name = "stacking"
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
        spec.numbers(self.name, least=0, sharpness=sharpness)
        super().__init__(context, seed)
        self.sharpness = sharpness
        self.weights_of = context.once_per_example(self.fitted_stack(context, seed).of_teachers)

    def fitted_stack(self, context: PolicyContext, seed: int) -> Stack:
        """Return the stack, fitted on the reward labels."""
        return Stack(context.reward_examples(), seed)

    def decide(self, batch: PolicyBatch) -> Tensor:
        """Return the weights of the mixture."""
        weights = self.weights_of(batch)
        if self.sharpness != 1.0:
            weights = (self.sharpness * weights.clamp_min(torch.finfo(weights.dtype).tiny).log()).softmax(1)
        return weights / weights.sum(1, keepdim=True)
