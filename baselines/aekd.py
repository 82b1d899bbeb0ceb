"""``aekd``: Adaptive Ensemble KD in gradient space (Du et al. 2020, "Agree to Disagree", NeurIPS): a direction that suits all teachers.

For each mini-batch, ``min |sum_k a_k g_k|^2`` over ``sum a = 1``, ``0 <= a_k <= bound``, g_k the gradient of teacher k's loss on the
student's logits, averaged over the mini-batch; all instances get the weights a. A bound below 1 / K allows no mixture, so it is raised
to 1 / K, which is uniform (as in the release); with one teacher the weight is 1.

Deviations: the program is solved exactly, and of equally good mixtures (duplicated teachers) the most even one is taken; the release
solves it approximately as a one-class support vector machine and can scale each g_k to length 1 first. Only the logits' gradient is used,
which needs no backward pass: ``KL_k = tau^2 KL(p_k || q)`` has the gradient ``tau (q - p_k)``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from baselines.box_simplex import shortest_mixture
from baselines.rule import BaseRule
from kd_env import spec
from kd_env.policies import PolicyBatch, PolicyContext, Range, SearchSpace


def weights(logit_gradients: Tensor, bound: float = 0.6) -> Tensor:
    """Return weights ``[K]`` on the simplex from each teacher's gradient on the student's logits ``[K, B, C]``; 1 at K = 1.

    Raises:
        ValueError: ``bound`` is not above 0.
    """
    if not bound > 0.0:
        raise ValueError(f"aekd needs a bound above 0, got {bound}")
    mean = logit_gradients.detach().double().mean(1)  # [K, C]
    if not mean.isfinite().all():  # no instances, or a student that has diverged; the next step ends its run
        return logit_gradients.new_full((len(mean),), 1.0 / len(mean))
    mixture = shortest_mixture((mean @ mean.T).cpu().numpy(), max(bound, 1.0 / len(mean)))
    return torch.from_numpy(mixture).to(logit_gradients)


def gradients(teacher_logits: Tensor, student_logits: Tensor, temperature: float) -> Tensor:
    """Return the gradient of each teacher's response loss on the student's logits, ``[B, K, C]``, ``[B, C]`` -> ``[K, B, C]``."""
    student = (student_logits / temperature).softmax(1)[:, None]
    return temperature * (student - (teacher_logits / temperature).softmax(2)).transpose(0, 1)


class AEKD(BaseRule):
    """Reads the teachers' gradients on the student's logits."""

    access = "gradient"
    paper = "Du et al. 2020, NeurIPS"
    search_space: SearchSpace = {"bound": Range(0.3, 1.0)}

    def __init__(self, context: PolicyContext, seed: int = 0, bound: float = 0.6) -> None:
        """Take the largest weight that one teacher may have (the paper's C)."""
        super().__init__(context, seed)
        spec.numbers("aekd", above=0, bound=bound)
        self.bound = bound

    def decide(self, batch: PolicyBatch) -> Tensor:
        """Return :func:`weights` of each student's mini-batch, for all of its instances."""
        by_teacher = gradients(batch.teacher_logits, batch.student.logits, self.context.settings.distillation.temperature)
        per_student = by_teacher.chunk(self.context.num_students, 1)  # S x [K, B, C]
        return torch.cat([weights(values, self.bound).expand(values.shape[1], -1) for values in per_student])
