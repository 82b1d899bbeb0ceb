"""Compute credit: the contribution of each teacher and knowledge type to the held-out improvement, per instance.

In: a run with observed mini-batches, and its reward meter. Out: the credit of each knowledge type m, ``[rows, K]`` (``label``:
``[rows, 1]``). The credit r_bmk is the expected decrease of the held-out loss after one step on L_m(b, k) / B alone, at strength 1. To
first order, it is 1 / B of the derivative of L_m(b, k) along v, the held-out gradient scaled by the optimizer and the learning rate:

    r_bmk = <v, grad L_m(b, k)> / B, for the response  tau (q_b - p_bk) . (J_b v) / B

It is 0 for a type that the epoch leaves out (``skip_epochs``).

J_b v is the derivative of the student's outputs for b along v. One pass computes it for all teachers and types: ``first_order`` in forward
mode, ``difference`` by a finite difference, which is cheaper.

Options of every kind of credit: ``smoothing`` is label smoothing of the held-out loss, 0 by default. Late in a run, the held-out gradient
comes mostly from examples on which the student is overconfident, and credit then favours wrong teachers. With a negative smoothing it
favours right ones.

Options of every kind but ``counterfactual``: ``examples`` is the number of held-out examples that are drawn for a gradient; 0, the default,
stands for ``reward_examples``. ``decay`` is the weight of the earlier gradients in a running mean; 0, the default, stands for the last
gradient alone. With ``examples=32,decay=0.9`` the mean is about as noisy as a gradient of 600 examples, uses 32 examples an update, and
lags by 9 gradients on average. ``folds`` divides the labels into parts, 1 by default: each gradient is of the next part, in turn, and
``info`` names it as ``credit_fold``. A policy that learns from credit of some folds can then be measured by credit of another one.

After Differentiable Data Selection (Wang et al. 2020, arXiv 1911.10088), learning to reweight (Ren et al. 2018, arXiv 1803.09050) and
TracIn (Pruthi et al. 2020, arXiv 2002.08484), here for each teacher, knowledge type and instance.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import cache

import torch
from torch import Tensor
from torch.autograd import forward_ad

from kd_env.distillation import Distillation
from kd_env.distillation.reward_meter import GradientOptions, RewardMeter
from kd_env.student.protocol import Students
from kd_env.types import ModelOutput

CreditByType = dict[str, Tensor]
"""Credit by knowledge type, ``[rows, K]``; for ``label``, ``[rows, 1]``."""
Temperature = float | Tensor | None
"""Temperature, a number or ``[rows]``; ``None`` means the setting's."""
MAX_STEP = 10**0.5
"""Step of Adam (betas .9 and .999) on the first gradient of a parameter after many zeros, in learning rates: (1 - .9) / sqrt(1 - .999).
Kingma and Ba (2015, arXiv 1412.6980, 2.1) call it the largest; gradients that grow by a tenth in each update give up to 7.3."""
RELATIVE_STEP = 1e-4
"""Size of the move of a difference, relative to the parameters. A larger one adds curvature, a smaller one rounding."""
Credit = Callable[[Distillation, RewardMeter, Sequence[str], Temperature], CreditByType]
"""Function of a run with observed mini-batches, its reward meter, names of knowledge types and a temperature that returns credit."""


def first_order(
    run: Distillation,
    meter: RewardMeter,
    names: Sequence[str],
    temperature: Temperature = None,
    smoothing: float = 0.0,
    examples: int = 0,
    decay: float = 0.0,
    folds: int = 1,
) -> CreditByType:
    """Return first-order credit over all parameters, from one forward-mode pass with the observed pass's dropout, without autocast.

    With Adam, parameters whose gradient was 0 so far dominate it in the first updates; :func:`difference` limits their part.
    """
    _load_forward_mode()
    student, direction = run.student, _held_out_direction(run, meter, GradientOptions(smoothing, examples, decay, folds))
    run.observe()
    with torch.no_grad(), forward_ad.dual_level():
        parameters = [forward_ad.make_dual(parameter.detach(), v) for parameter, v in zip(student.parameters, direction, strict=True)]  # type: ignore[no-untyped-call]
        return _credit_along(run, names, temperature, _output_at(run, parameters))


def difference(
    run: Distillation,
    meter: RewardMeter,
    names: Sequence[str],
    temperature: Temperature = None,
    smoothing: float = 0.0,
    examples: int = 0,
    decay: float = 0.0,
    folds: int = 1,
) -> CreditByType:
    """Return first-order credit over all parameters, from a second pass of the mini-batch at parameters moved a little along v.

    It needs no forward mode of the network. With Adam, the entries of v are limited to :data:`MAX_STEP` learning rates. So parameters
    whose gradient was 0 so far, such as embeddings of new tokens, do not dominate. Where no entry is limited, float32 credit differs from
    :func:`first_order` by less than 1 %.
    """
    student, direction = run.student, _held_out_direction(run, meter, GradientOptions(smoothing, examples, decay, folds), clamp_steps=True)
    run.observe()
    scale, tau = _difference_scale(student, direction), _or_setting(run, temperature)  # [S]
    parameter_scale = scale if run.num_students == 1 else scale[:, None]  # a population's parameters are [S, P]

    with torch.no_grad():
        observed_fits = not (student.autocast or run.swap.blocks)  # both passes are without autocast, and of the student alone
        output = run.student_output() if observed_fits else _output_at(run, student.parameters)
        moved = [parameter + parameter_scale * v for parameter, v in zip(student.parameters, direction, strict=True)]
        moved_output = _output_at(run, moved)
        row_scale = scale.repeat_interleave(run.settings.batch_size)[:, None]  # [rows, 1]
        if _is_response_alone(run, names):
            return {"response": _response_along(run, tau, output.logits, (moved_output.logits - output.logits) / row_scale)}
        losses = {name: [run.per_teacher_loss(name, tau, each) for each in (output, moved_output)] for name in names}
    return {name: (after - before) / row_scale / run.settings.batch_size for name, (before, after) in losses.items()}


def head(
    run: Distillation,
    meter: RewardMeter,
    names: Sequence[str],
    temperature: Temperature = None,
    smoothing: float = 0.0,
    examples: int = 0,
    decay: float = 0.0,
    folds: int = 1,
) -> CreditByType:
    """Return first-order credit over the classifier's parameters alone; 0 for types that compare outputs below the classifier.

    It takes no extra pass of the mini-batch, except with ``block_swap``.
    """
    _load_forward_mode()
    output = _output_of_student(run)
    direction = _held_out_direction(run, meter, GradientOptions(smoothing, examples, decay, folds, head_only=True))
    tangent = run.student.classify(output.features.detach(), direction)  # [rows, C]: the classifier is linear in its parameters
    with torch.no_grad(), forward_ad.dual_level():
        return _credit_along(run, names, temperature, output._replace(logits=forward_ad.make_dual(output.logits.detach(), tangent)))  # type: ignore[no-untyped-call]


def counterfactual(
    run: Distillation, meter: RewardMeter, names: Sequence[str], temperature: Temperature = None, smoothing: float = 0.0
) -> CreditByType:
    """Return exact credit: the measured change of the held-out loss after one optimizer step on the loss of one instance and one teacher.

    All steps start from the same state and are measured on the same held-out examples. The effect of the optimizer's momentum is
    subtracted. The cost is B x K steps and measurements per type. Use it to check the other kinds of credit.
    """
    student, students = run.student, run.num_students
    parameters, progress = student.parameters, run.observe().progress

    def loss_after(gradient: Sequence[Tensor]) -> Tensor:
        return meter.held_out_loss(student, student.after(gradient, progress), run.update, smoothing)  # [S]

    output = _output_of_student(run)
    loss_without_gradient = loss_after([torch.zeros_like(parameter) for parameter in parameters])
    credit = {}
    for name in names:
        losses = run.per_teacher_loss(name, _or_setting(run, temperature), output) / run.settings.batch_size  # [rows, K]
        if not losses.requires_grad:  # of a type that the epoch leaves out
            credit[name] = torch.zeros_like(losses)
            continue
        candidates = losses.view(students, -1).unbind(1)  # each [S], one pair of instance and teacher of every student
        gradients = (torch.autograd.grad(loss.sum(), parameters, retain_graph=True, materialize_grads=True) for loss in candidates)
        decrease = torch.stack([loss_without_gradient - loss_after(gradient) for gradient in gradients], 1)
        credit[name] = decrease.view_as(losses).detach()
    return credit


CREDITS: dict[str, Credit] = {
    "first_order": first_order,
    "difference": difference,
    "head": head,
    "counterfactual": counterfactual,
}


def _held_out_direction(run: Distillation, meter: RewardMeter, options: GradientOptions, clamp_steps: bool = False) -> list[Tensor]:
    """Return v, one tensor per parameter; ``clamp_steps`` limits its entries as :func:`difference` says."""
    gradient = meter.held_out_gradient(run.student, run.update, options)
    rates = [run.student.options.rate(float(progress)) for progress in run.observe().progress]
    rate = rates[0] if run.num_students == 1 else torch.tensor(rates, dtype=run.student.dtype, device=run.student.device)[:, None]
    direction = []
    for scale, value in zip(run.student.preconditioner(), gradient, strict=True):
        if not isinstance(scale, Tensor):
            direction.append(rate * scale * value)
            continue
        product = scale.mul_(rate).mul_(value)
        direction.append(_limited(product, MAX_STEP * rate) if clamp_steps else product)
    return direction


def _limited(tensor: Tensor, limit: float | Tensor) -> Tensor:
    return torch.clamp_(tensor, -limit, limit)  # type: ignore[arg-type]


def _difference_scale(student: Students, direction: Sequence[Tensor]) -> Tensor:
    """Return the factor of the direction at which a difference is taken, ``[S]``: a small part of the size of the parameters."""

    def norm(tensors: Sequence[Tensor]) -> Tensor:
        norms = [torch.linalg.vector_norm(tensor.detach().reshape(student.num_students, -1), dim=1) for tensor in tensors]
        total: Tensor = torch.linalg.vector_norm(torch.stack(norms), dim=0)
        return total

    size = norm(direction)
    scale: Tensor = torch.where(size > 0.0, RELATIVE_STEP * norm(student.parameters) / size, 1.0)
    return scale


def _credit_along(run: Distillation, names: Sequence[str], temperature: Temperature, output: ModelOutput) -> CreditByType:
    """Return the derivatives of the losses of ``output``, which contains dual numbers, divided by B."""
    tau = _or_setting(run, temperature)
    if _is_response_alone(run, names) and not isinstance(tau, Tensor):  # the common case in closed form, at a quarter of the cost
        logits, tangent = forward_ad.unpack_dual(output.logits)  # type: ignore[no-untyped-call]
        return {"response": _response_along(run, tau, logits, tangent)}
    credit = {}
    for name in names:
        losses, tangent = forward_ad.unpack_dual(run.per_teacher_loss(name, tau, output))  # type: ignore[no-untyped-call]
        credit[name] = (torch.zeros_like(losses) if tangent is None else tangent) / run.settings.batch_size
    return credit


def _is_response_alone(run: Distillation, names: Sequence[str]) -> bool:
    return tuple(names) == ("response",) and not run.loss.is_skipped("response", run.observe())


def _output_of_student(run: Distillation) -> ModelOutput:
    """Return the students' outputs for the mini-batches, differentiable; with ``block_swap``, those of the student's own blocks alone."""
    return _output_at(run, run.student.parameters) if run.swap.blocks else run.student_output()


def _output_at(run: Distillation, parameters: Sequence[Tensor]) -> ModelOutput:
    """Return the outputs of students with these parameters, with the dropout of the observed pass and without autocast."""
    run.state.forward_examples += run.settings.batch_size
    with run.dropout.replay():
        return run.student.forward_at(parameters, run.batch_inputs(), run.loss.extra_outputs)


def _response_along(run: Distillation, temperature: float | Tensor, logits: Tensor, tangent: Tensor) -> Tensor:
    batch = run.observe()
    tau = temperature[:, None] if isinstance(temperature, Tensor) else temperature
    q = ((logits if run.swap.blocks else batch.student.logits) / tau).softmax(1)  # [rows, C], of the observed pass if it is the student's
    p = (batch.teacher_logits / (tau[:, None] if isinstance(tau, Tensor) else tau)).softmax(2)  # [rows, K, C]
    credit: Tensor = tau * torch.einsum("bkc,bc->bk", q[:, None] - p, tangent) / run.settings.batch_size
    return credit


def _or_setting(run: Distillation, temperature: Temperature) -> float | Tensor:
    return run.settings.temperature if temperature is None else temperature


@cache
def _load_forward_mode() -> None:
    """Load torch's forward-mode rules. On first use torch calls a function that it deprecates itself; that warning is hidden here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        with forward_ad.dual_level():
            forward_ad.make_dual(torch.zeros(1), torch.ones(1))  # type: ignore[no-untyped-call]
