"""Compute credit: the contribution of each teacher and knowledge type to the held-out improvement, per instance.

In: a run with observed mini-batches, and its reward meter. Out: the credit of each knowledge type m, ``[rows, K]`` (``label``:
``[rows, 1]``). The credit r_bmk is the expected decrease of the held-out loss after one step on the loss L_m(b, k) alone, at strength 1,
divided by B. To first order, it is the derivative of L_m(b, k) along v, the held-out gradient scaled by the optimizer and the learning
rate:

    r_bmk = <v, grad L_m(b, k)>, for the response  tau (q_b - p_bk) . (J_b v)

J_b v is the derivative of the student's outputs for b along v. One forward-mode pass computes it for all teachers and types.

``smoothing`` is label smoothing of the held-out loss, 0 by default. First-order credit of a student that is taught well is mostly about
examples that it is too sure of, and then favours wrong teachers. With a negative smoothing it favours right ones.

After Differentiable Data Selection (Wang et al. 2020, arXiv 1911.10088), learning to reweight (Ren et al. 2018, arXiv 1803.09050) and
TracIn (Pruthi et al. 2020, arXiv 2002.08484), here for each teacher, knowledge type and instance.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Sequence
from functools import cache, partial

import torch
from torch import Tensor
from torch.autograd import forward_ad

from kd_env.distillation import Distillation
from kd_env.distillation.reward_meter import RewardMeter
from kd_env.errors import InputError
from kd_env.plugins import faults_in, resolve
from kd_env.spec import numbers, parse, unknown
from kd_env.types import ModelOutput

CreditByType = dict[str, Tensor]
"""Credit by knowledge type, ``[rows, K]``; for ``label``, ``[rows, 1]``."""
Temperature = float | Tensor | None
"""Temperature, a number or ``[rows]``; ``None`` means the setting's."""
Credit = Callable[[Distillation, RewardMeter, Sequence[str], Temperature], CreditByType]
"""Function of a run with observed mini-batches, its reward meter, names of knowledge types and a temperature that returns credit."""


def first_order(
    run: Distillation, meter: RewardMeter, names: Sequence[str], temperature: Temperature = None, smoothing: float = 0.0
) -> CreditByType:
    """Return first-order credit over all parameters, from one forward-mode pass with the observed pass's dropout, without autocast."""
    _load_forward_mode()
    student, direction = run.student, _direction(run, meter, False, smoothing)
    run.observe()
    run.state.forward_examples += run.settings.batch_size
    with run.dropout.replay(), torch.no_grad(), forward_ad.dual_level():
        parameters = [forward_ad.make_dual(parameter.detach(), v) for parameter, v in zip(student.parameters, direction, strict=True)]  # type: ignore[no-untyped-call]
        return _along(run, names, temperature, student.forward_at(parameters, run.batch_inputs(), run.loss.extra_outputs))


def head(
    run: Distillation, meter: RewardMeter, names: Sequence[str], temperature: Temperature = None, smoothing: float = 0.0
) -> CreditByType:
    """Return first-order credit over the classifier's parameters alone, without an extra pass of the mini-batch.

    It is 0 for types that compare outputs below the classifier.
    """
    _load_forward_mode()
    output = run.observe().student
    direction = _direction(run, meter, True, smoothing)
    tangent = run.student.classify(output.features, direction)  # [rows, C]: the classifier is linear in its parameters
    with torch.no_grad(), forward_ad.dual_level():
        return _along(run, names, temperature, run.student_output()._replace(logits=forward_ad.make_dual(output.logits, tangent)))  # type: ignore[no-untyped-call]


def counterfactual(
    run: Distillation, meter: RewardMeter, names: Sequence[str], temperature: Temperature = None, smoothing: float = 0.0
) -> CreditByType:
    """Return exact credit: the measured effect of an optimizer step on the loss of one instance and one teacher alone.

    All steps start from the same state and are measured on the same held-out examples. The effect of the optimizer's momentum is
    subtracted. The cost is B x K steps and measurements per type. Use it to check the other kinds of credit.
    """
    student, students = run.student, run.num_students
    parameters, progress = student.parameters, run.observe().progress

    def loss_after(gradient: Sequence[Tensor]) -> Tensor:
        return meter.held_out_loss(student, student.after(gradient, progress), run.update, smoothing)  # [S]

    idle = loss_after([torch.zeros_like(parameter) for parameter in parameters])
    credit = {}
    for name in names:
        losses = run.per_teacher_loss(name, _or_setting(run, temperature)) / run.settings.batch_size  # [rows, K]
        candidates = losses.view(students, -1).unbind(1)  # each [S], one pair of instance and teacher of every student
        gradients = (torch.autograd.grad(loss.sum(), parameters, retain_graph=True, materialize_grads=True) for loss in candidates)
        decrease = torch.stack([idle - loss_after(gradient) for gradient in gradients], 1)
        credit[name] = decrease.view_as(losses).detach()
    return credit


ARGUMENTS = ("run", "meter", "names", "temperature")
CREDITS: dict[str, Credit] = {
    "first_order": first_order,
    "head": head,
    "counterfactual": counterfactual,
}


def make_credit(text: str) -> Credit | None:
    """Return the credit function ``text``, such as ``first_order(smoothing=-0.3)`` or ``module:function``.

    It is ``None`` for ``shared``, which does not divide the reward.

    Raises:
        InputError: no credit function has this name or these options, or the object is not a function.
    """
    name, options = parse(text)
    if name == "shared" and not options:
        return None
    if name not in CREDITS and ":" not in name:
        raise unknown("credit", name, ["shared", *CREDITS], ", and no module:function")
    credit: Credit = CREDITS[name] if name in CREDITS else resolve(name, "credit")
    if not callable(credit) or isinstance(credit, type):
        raise InputError(
            f"credit {name!r}: a {type(credit).__name__} is not a function; name one that takes (run, meter, names, temperature)"
        )
    if not options:
        return credit
    known = [parameter for parameter in inspect.signature(credit).parameters if parameter not in ARGUMENTS]
    for option in options:
        if option not in known:
            raise unknown(f"option of credit={name}", option, known)
    if name in CREDITS:
        numbers(f"credit={name}", below=1.0, **options)
    return partial(credit, **options)


def checked_credit(credit: Credit, run: Distillation, meter: RewardMeter, names: Sequence[str], temperature: Temperature) -> CreditByType:
    """Return the credit of the teachers by knowledge type, ``[rows, K]``.

    Raises:
        InputError: a credit function of the user's own fails, or returns something else.
    """
    function = getattr(credit, "func", credit)  # that of a partial
    with faults_in(f"credit {getattr(function, '__name__', 'function')!r}", function):
        by_type: object = credit(run, meter, names, temperature)
    rows = len(run.observe().labels)
    if not isinstance(by_type, dict) or not all(isinstance(by_type.get(name), Tensor) and len(by_type[name]) == rows for name in names):
        raise InputError(
            f"credit: the function returned a {type(by_type).__name__}, expected a tensor [{rows}, K] for each of {list(names)}"
        )
    return by_type


def normalize(credit: Tensor) -> Tensor:
    """Return credit ``[rows, K]``, centred and scaled over the teachers of each instance; 0 if all are equal.

    Without it, teachers that are far from the student would dominate, since ``|r_bk|`` grows with ``KL_bk``.
    """
    centred = credit - credit.mean(1, keepdim=True)
    spread = centred.square().mean(1, keepdim=True).sqrt()
    rounding = 4 * torch.finfo(credit.dtype).eps * credit.abs().amax(1, keepdim=True)
    return torch.where(spread > rounding, centred / spread.clamp_min(torch.finfo(credit.dtype).tiny), 0.0)


def scale(credit: Tensor) -> Tensor:
    """Return credit ``[rows, ...]`` with each row scaled to a root mean square of 1. Signs and zeros do not change."""
    size = credit.flatten(1).square().mean(1).sqrt().view(-1, *[1] * (credit.ndim - 1))
    return credit / torch.where(size > 0.0, size, 1.0)


def _direction(run: Distillation, meter: RewardMeter, head_only: bool, smoothing: float) -> list[Tensor]:
    gradient = meter.held_out_gradient(run.student, run.update, head_only, smoothing)
    rates = [run.student.options.rate(float(progress)) for progress in run.observe().progress]
    rate = rates[0] if run.num_students == 1 else torch.tensor(rates, dtype=run.student.dtype, device=run.student.device)[:, None]
    scales = run.student.preconditioner()
    return [
        scale.mul_(rate).mul_(value) if isinstance(scale, Tensor) else rate * scale * value
        for scale, value in zip(scales, gradient, strict=True)
    ]


def _along(run: Distillation, names: Sequence[str], temperature: Temperature, output: ModelOutput) -> CreditByType:
    """Return the derivatives of the losses of ``output``, which contains dual numbers, divided by B."""
    tau = _or_setting(run, temperature)
    if tuple(names) == ("response",) and not isinstance(tau, Tensor):  # the common case in closed form, at a quarter of the cost
        return {"response": _response_along(run, tau, forward_ad.unpack_dual(output.logits).tangent)}  # type: ignore[no-untyped-call]
    credit = {}
    for name in names:
        losses, tangent = forward_ad.unpack_dual(run.per_teacher_loss(name, tau, output))  # type: ignore[no-untyped-call]
        credit[name] = (torch.zeros_like(losses) if tangent is None else tangent) / run.settings.batch_size
    return credit


def _response_along(run: Distillation, temperature: float, tangent: Tensor) -> Tensor:
    batch = run.observe()
    q = (batch.student.logits / temperature).softmax(1)  # [rows, C]
    p = (batch.teacher_logits / temperature).softmax(2)  # [rows, K, C]
    return temperature * torch.einsum("bkc,bc->bk", q[:, None] - p, tangent) / run.settings.batch_size


def _or_setting(run: Distillation, temperature: Temperature) -> float | Tensor:
    return run.settings.temperature if temperature is None else temperature


@cache
def _load_forward_mode() -> None:
    """Load torch's forward-mode rules. On first use torch calls a function that it deprecates itself; that warning is hidden here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        with forward_ad.dual_level():
            forward_ad.make_dual(torch.zeros(1), torch.ones(1))  # type: ignore[no-untyped-call]
