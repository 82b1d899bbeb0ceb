"""``ital``: the teachers pick examples, and the student also learns from which ones were not picked.

After iterative teacher-aware learning (Yuan et al. 2021, arXiv 2110.00137), for examples x of a mini-batch, the loss L_x of distillation
from the mean of the teachers, and its gradient g_x by the student's classifier:

    teachers: pick the ``selected`` examples with the largest  2 step (L_x - L*_x) - step^2 norm(g_x)^2
    student:  theta <- theta - step g - 2 beta step^2 (g - sum_x e_x g_x),    e = softmax_x(-beta (step^2 norm(g_x)^2 - 2 step^2 <g, g_x>))

L*_x is the loss of the teachers' mean itself, and g the mean of g_x over the picked examples. e_x is the student's estimate of the
probability that x is picked. The policy returns strengths of the examples with which one update of the student has this gradient.

Deviations: the published student knows labels, and we use the teachers' mean. The released teachers compute norm(g_x) from their own
features, and we from the student's. The student has one linear layer; we take gradients of the last layer to pick examples, while all
layers learn. It computes its second term after the first step. We approximate it before, by ``L_x(theta) - L_x(theta - step g) = step
<g, g_x>``, so that one update is enough. The paper picks one example of 20, we 16 of 32 by default; the released ``beta`` is 500 to 60,001,
by experiment. No reinforcement learning.
"""

from __future__ import annotations

import torch
from torch import Tensor

from baselines.rule import WEIGHTS, BaseRule, uniform
from kd_env import spec
from kd_env.policies import PolicyBatch, PolicyContext
from kd_env.types import Decision


def strengths(
    teacher_logits: Tensor, student_logits: Tensor, features: Tensor, temperature: float, selected: int, beta: float, step: float
) -> Tensor:
    """Return strengths of the examples of one mini-batch, ``[B]``, with mean 1.

    Args:
        teacher_logits: ``[B, K, C]``.
        student_logits: ``[B, C]``.
        features: inputs of the student's classifier, ``[B, D]``.
        temperature: temperature of the distillation.
        selected: number of examples that the teachers pick, at most B.
        beta: weight of the second term, and sharpness of e.
        step: learning rate in the formulas.
    """
    target = (teacher_logits.double() / temperature).softmax(2).mean(1)  # [B, C]
    log_q = (student_logits.double() / temperature).log_softmax(1)
    excess = temperature**2 * (torch.special.xlogy(target, target) - target * log_q).sum(1)  # [B]: L_x - L*_x
    residual = temperature * (log_q.exp() - target)  # [B, C]: gradient of L_x by the logits
    inputs = torch.cat([features.double(), torch.ones(len(features), 1, dtype=torch.double, device=features.device)], 1)
    products = (residual @ residual.T) * (inputs @ inputs.T)  # [B, B]: <g_x, g_y>
    gain = 2.0 * step * excess - step**2 * products.diagonal()
    picked = torch.zeros_like(gain).index_fill_(0, gain.topk(selected).indices, 1.0 / selected)  # [B]
    believed = (-beta * step**2 * (products.diagonal() - 2.0 * products @ picked)).softmax(0)  # [B]: e
    return len(gain) * (picked + 2.0 * beta * step * (picked - believed))


class ITAL(BaseRule):
    """Reads the outputs of teachers and student. All teachers have equal weights."""

    access = "student outputs"
    paper = "Yuan et al. 2021, arXiv 2110.00137"
    env_options = WEIGHTS

    def __init__(self, context: PolicyContext, seed: int = 0, selected: int = 16, beta: float = 50.0, step: float = 1e-3) -> None:
        """Check the options.

        Args:
            context: see :class:`~kd_env.policies.PolicyContext`.
            seed: not used.
            selected: number of examples of a mini-batch that the teachers pick; at most all of them.
            beta: weight of the second term, and sharpness of e; with 0 the student learns from the picked examples only.
            step: learning rate in the formulas; the student's optimizer has its own.
        """
        super().__init__(context, seed)
        spec.numbers("ital", least=1, whole=True, selected=selected)
        spec.numbers("ital", least=0, beta=beta)
        spec.numbers("ital", above=0, step=step)
        self.batch_size = context.settings.distillation.batch_size
        self.selected, self.beta, self.step = min(selected, self.batch_size), beta, step

    def decide(self, batch: PolicyBatch) -> Decision:
        """Return equal weights, and the same :func:`strengths` for every knowledge type."""
        temperature, of_students = self.context.settings.distillation.temperature, []
        for start in range(0, batch.num_rows, self.batch_size):
            rows = slice(start, start + self.batch_size)
            outputs = batch.teacher_logits[rows], batch.student.logits[rows], batch.student.features[rows]
            of_students.append(strengths(*outputs, temperature, self.selected, self.beta, self.step))
        weights = uniform(batch).to(batch.teacher_logits)
        factors = dict.fromkeys(self.context.terms, torch.cat(of_students).to(batch.teacher_logits))
        return self.context.decision(dict.fromkeys(self.context.terms, weights), factors)
