"""Shape letters, and the values that pass from one stage to the next.

N examples, B mini-batch, K teachers, M knowledge types, C classes, D feature width, F observation columns.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from torch import Tensor

Inputs = dict[str, Tensor]
"""What a network reads, by the Transformers names (``pixel_values`` or ``input_ids``, ``attention_mask``); first axis N or B."""

Observation = dict[str, np.ndarray]
"""Named blocks, each ``[rows, F]``, float32."""


class ModelOutput(NamedTuple):
    """What a student or a teacher says about a batch."""

    logits: Tensor  # [B, C]
    features: Tensor  # [B, D], the classifier's input
    layers: Tensor | None = None  # [B, L, D], each layer's [CLS] (of an MLP, each hidden layer), where they were asked for


@dataclass(frozen=True)
class Features:
    """All that can be known about the mini-batch the student is about to learn from; an agent is shown the observation.

    Tensors are detached and on the student's device.
    """

    update: int
    progress: float  # in [0, 1)
    example_ids: np.ndarray  # [B] rows of the train split
    labels: Tensor  # [B]
    teacher_logits: Tensor  # [B, K, C]
    teacher_features: tuple[Tensor, ...]  # K x [B, D_k]
    student: ModelOutput


@dataclass(frozen=True)
class Decision:
    """How one mini-batch is taught: ``L = mean_b sum_m s_bm sum_k w_bmk L_m(b, k)``.

    Attributes:
        weights: per knowledge type, ``[B, K]``, rows on the simplex, or all zero where nobody teaches the instance.
        strengths: per knowledge type, a scalar or ``[B]``; ``label`` needs a strength only.
        temperature: of the response knowledge.
    """

    weights: Mapping[str, Tensor]
    strengths: Mapping[str, float | Tensor]
    temperature: float

    @classmethod
    def response(cls, weights: Tensor, strength: float, temperature: float) -> Decision:
        """The single-knob form: response at ``strength``, the hard label at ``1 - strength``."""
        return cls({"response": weights}, {"response": strength, "label": 1.0 - strength}, temperature)


@dataclass(frozen=True)
class Outcome:
    """What one update did.

    Attributes:
        loss: the loss that was stepped on.
        student_ce: ``[B]`` cross-entropy of the student on the batch's labels, before the update.
        improvement: decrease of the held-out loss (or increase of the metric) since the last measurement; ``None`` when not due.
        diverged: the loss, before the step or on the held-out examples after it, is no longer finite.
    """

    loss: float
    student_ce: Tensor
    improvement: float | None
    diverged: bool


class Policy(Protocol):
    """Chooses for each row of an observation. Built as ``P(env, seed, **hyperparameters)``.

    A class may declare ``access`` (what it reads, see ``kd_env.benchmark.policies.ACCESS``) and ``env_options`` (the env keywords it
    needs).
    """

    def act(self, observation: Observation) -> np.ndarray:
        """Actions for all rows, in the space ``env.action_space``."""
        ...


class Learner(Policy, Protocol):
    """A policy that is trained by driving students."""

    def learn(self, env: Any, num_updates: int) -> object:
        """Drive ``env`` for ``num_updates`` student updates and learn from what it pays."""
        ...

    def save(self, path: str) -> None:
        """Write what was learned."""
        ...
