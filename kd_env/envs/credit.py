"""Credit: which teacher of which instance lowered the held-out loss.

In: a run with an observed mini-batch. Out: ``[B, K]``, the decrease of the held-out loss to be expected from one step on the response
loss of instance b from teacher k (times the strength, over B, as in the mini-batch loss). To first order that is

    r_bk = <v, grad KL_bk> = tau (q_b - p_bk) . (J_b v)

with v the held-out gradient, scaled as the optimizer scales it and by the learning rate, and J_b v the derivative of the student's
logits along it: one directional derivative serves all B x K pairs. After Differentiable Data Selection (Wang et al. 2020, arXiv
1911.10088), learning to reweight (Ren et al. 2018, arXiv 1803.09050) and TracIn (Pruthi et al. 2020, arXiv 2002.08484), here for each
teacher and instance.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.func import functional_call

from kd_env.distillation import Distillation
from kd_env.settings import Credit


def first_order(run: Distillation) -> Tensor:
    """All parameters; one forward-mode pass under the retained pass's dropout mask, autocast off."""
    _load_forward_mode()
    network, inputs, direction = run.student.network, run.student.cast(run.inputs_of_batch()), _direction(run, head_only=False)
    with run.rng(replay=True), torch.no_grad(), forward_ad.dual_level():
        named = zip(network.named_parameters(), direction, strict=True)
        duals = {name: forward_ad.make_dual(value, v) for (name, value), v in named}  # type: ignore[no-untyped-call]
        logits = functional_call(network, duals, kwargs=inputs).logits
        along: Tensor | None = forward_ad.unpack_dual(logits).tangent  # type: ignore[no-untyped-call]  # [B, C]
    assert along is not None
    run.student_forward_examples += len(along)
    return _inner(run, along)


def head(run: Distillation) -> Tensor:
    """The classifier's parameters alone: closed form from the pooled features; the mini-batch needs no extra pass."""
    direction = dict(zip(run.student.network.parameters(), _direction(run, head_only=True), strict=True))
    weight, bias = run.student.classifier.parameters()
    along = run.observe().student.features @ direction[weight].T + direction[bias]  # [B, C]
    return _inner(run, along)


def counterfactual(run: Distillation) -> Tensor:
    """Exact: for each pair a real optimizer step on that pair alone from the same state, measured on the same held-out examples.

    What the optimizer's momentum alone would have done is subtracted. Costs B x K steps and measurements: the check of the other two.
    """
    student = run.student
    terms = run.settings.strength * run.response_terms(run.settings.temperature) / run.settings.batch_size  # [B, K]
    parameters = list(student.network.parameters())
    twin = copy.deepcopy(student.network)
    optimizer = student.options.build(twin)
    state = student.optimizer.state_dict()

    def loss_after(gradient: list[Tensor]) -> float:
        twin.load_state_dict(student.network.state_dict())
        optimizer.load_state_dict(copy.deepcopy(state))
        for parameter, value in zip(twin.parameters(), gradient, strict=True):
            parameter.grad = value
        for group in optimizer.param_groups:
            group["lr"] = student.options.rate(run.observe().progress)
        optimizer.step()
        return run.meter.held_out_loss(student, twin, run.update)

    idle = loss_after([torch.zeros_like(parameter) for parameter in parameters])
    gained = [idle - loss_after(list(torch.autograd.grad(term, parameters, retain_graph=True))) for term in terms.flatten()]
    return torch.tensor(gained, dtype=terms.dtype, device=terms.device).view_as(terms)


CREDITS: dict[Credit, Callable[[Distillation], Tensor]] = {"first_order": first_order, "head": head, "counterfactual": counterfactual}


def normalize(credit: Tensor) -> Tensor:
    """Centre and scale over the teachers of each instance: ``|r_bk|`` grows with ``KL_bk``. All zero where K is 1 or all are equal."""
    centred = credit - credit.mean(1, keepdim=True)
    spread = centred.square().mean(1, keepdim=True).sqrt()
    rounding = 4 * torch.finfo(credit.dtype).eps * credit.abs().amax(1, keepdim=True)
    return torch.where(spread > rounding, centred / spread.clamp_min(torch.finfo(credit.dtype).tiny), 0.0)


def _direction(run: Distillation, head_only: bool) -> list[Tensor]:
    gradient = run.meter.held_out_gradient(run.student, run.update, run.settings.credit_refresh, head_only)
    rate = run.student.options.rate(run.observe().progress)
    return [rate * scale * value for scale, value in zip(run.student.preconditioner(), gradient, strict=True)]


@cache
def _load_forward_mode() -> None:
    """On first use torch compiles its forward-mode rules through a function it deprecates itself; that warning is not our user's."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        with forward_ad.dual_level():
            forward_ad.make_dual(torch.zeros(1), torch.ones(1))  # type: ignore[no-untyped-call]


def _inner(run: Distillation, along: Tensor) -> Tensor:
    features, temperature = run.observe(), run.settings.temperature
    q = (features.student.logits / temperature).softmax(1)  # [B, C]
    p = (features.teacher_logits / temperature).softmax(2)  # [B, K, C]
    slope = temperature * torch.einsum("bkc,bc->bk", q[:, None] - p, along)
    return run.settings.strength * slope / run.settings.batch_size
