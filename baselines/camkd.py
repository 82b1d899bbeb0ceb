"""``camkd``: Confidence-Aware Multi-teacher KD (Zhang et al. 2022, ICASSP, arXiv 2201.00007), logit and feature weights.

``w_k = (1 - softmax_k(c)) / (K - 1)``, c_k the teacher's cross-entropy on the label. The student's features, mapped to teacher k's width,
pass through teacher k's classifier: the cross-entropy c'_k of the result gives ``v_k`` by the same formula, the weight of
``mean((r_k(F_S) - F_k)^2)``. As in the released code, v carries its gradient; ``detach`` removes it. If the setting's knowledge has
``map_hint``, the same is done with feature maps, as published: the mapped map passes through teacher k's pooling and classifier.

``scale="matched"`` (ours): both sum to 1, with the strengths of the setting. ``scale="released"``: the label has strength 1, responses and
hints are divided by K once more, whatever the setting's kd_weight, so that uniform weights are K times weaker than a plain average; there
are no hints in the first epoch.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import linear

from baselines.compared_features import HINTS, mapped_features, stage_of
from baselines.rule import WEIGHTS, BaseRule
from baselines.scale import Scale, check_scale, scaled
from kd_env.errors import InputError
from kd_env.knowledge.label import teacher_ce
from kd_env.models.stages import LAST
from kd_env.policies import Choice, PolicyBatch, PolicyContext, SearchSpace
from kd_env.types import Decision


def weights(teacher_logits: Tensor, labels: Tensor) -> Tensor:
    """Return logit weights, ``[B, K, C]``, ``[B]`` -> ``[B, K]``, rows on the simplex.

    Raises:
        ValueError: K is 1.
    """
    count = teacher_logits.shape[1]
    if count < 2:
        raise ValueError("camkd needs at least two teachers: with one, (1 - softmax) / (K - 1) is 0 / 0")
    loss = teacher_ce(teacher_logits, labels)
    return (1.0 - loss.clamp(max=torch.finfo(loss.dtype).max).softmax(1)) / (count - 1)  # infinite if a teacher excludes the label


def feature_weights(hints: Sequence[Tensor], classifiers: Sequence[tuple[Tensor, Tensor]], labels: Tensor) -> Tensor:
    """Return :func:`weights` of each teacher's classifier on the mapped student features ``hints``, K x ``[B, D_k]`` -> ``[B, K]``."""
    logits = [linear(hint, *classifier) for hint, classifier in zip(hints, classifiers, strict=True)]
    return weights(torch.stack(logits, 1), labels)


class CAMKD(BaseRule):
    """Reads the training labels and, unless ``detach`` is set, weighs features by a function of the student that carries its gradient."""

    access = "gradient"
    paper = "Zhang et al. 2022, arXiv 2201.00007"
    env_options = {**WEIGHTS, "knowledge": "response,hint(strength=50)"}
    min_teachers = 2
    search_space: SearchSpace = {
        "detach": Choice((False, True)),
        "knowledge": Choice(("response,hint(strength=50)", "response,hint(strength=5)", "response,hint(strength=0.5)")),
    }

    def __init__(self, context: PolicyContext, seed: int = 0, scale: Scale = "matched", detach: bool = False) -> None:
        """Read the teachers' classifiers, if the setting has hints.

        Raises:
            InputError: hints are of another stage than the one that the classifiers read.
        """
        super().__init__(context, seed)
        check_scale(context, "camkd", scale)
        self.scale, self.detach = scale, detach
        self.hints = [name for name in HINTS if name in context.terms]
        for name in self.hints:
            if (stage := stage_of(context, name)) != LAST:
                raise InputError(f"policy camkd: the teachers' classifiers read the last map, {name} compares {stage}; leave stage out")
        self.classifiers = context.classifiers() if self.hints else []

    def decide(self, batch: PolicyBatch) -> Decision:
        """Return the weights of responses and hints, and the strengths."""
        by_type = {}
        if "response" in self.context.terms:
            by_type["response"] = weights(batch.teacher_logits, batch.labels)
        for name in self.hints:
            classifiers = [(weight.to(batch.teacher_logits), bias.to(batch.teacher_logits)) for weight, bias in self.classifiers]
            hints = feature_weights(mapped_features(self.context, name, batch.student_output), classifiers, batch.labels)
            by_type[name] = hints.detach() if self.detach else hints
        equal_weight = 1.0 / self.context.num_teachers
        hinted = equal_weight * self.context.after_epochs(batch, 1).to(batch.teacher_logits)
        return scaled(self.context, by_type, self.scale, {"response": equal_weight, "hint": hinted, "map_hint": hinted})


class CAMKDLogits(BaseRule):
    """``camkd_logits``: the logit weights alone."""

    access = "train labels"
    paper = CAMKD.paper
    min_teachers = 2

    def decide(self, batch: PolicyBatch) -> Tensor:
        """Return :func:`weights` of the mini-batch."""
        return weights(batch.teacher_logits, batch.labels)
