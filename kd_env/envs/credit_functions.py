"""Make a credit function from its name and options, and check what it returns. In: text. Out: a function of :mod:`kd_env.envs.credit`."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from functools import partial
from typing import Any

from torch import Tensor

from kd_env.distillation import Distillation
from kd_env.distillation.reward_meter import RewardMeter
from kd_env.envs.credit import CREDITS, Credit, CreditByType, Temperature
from kd_env.errors import InputError
from kd_env.models.low_bit import is_low_bit
from kd_env.plugins import faults_in, is_built_in, resolve
from kd_env.spec import numbers, parse, unknown

LIMITS: dict[str, dict[str, Any]] = {
    "smoothing": {"below": 1.0},
    "examples": {"least": 0, "whole": True},
    "decay": {"least": 0.0, "below": 1.0},
    "folds": {"least": 1, "whole": True},
}
"""Limits of the options of the built-in kinds of credit."""
ARGUMENTS = ("run", "meter", "names", "temperature")


def make_credit(text: str) -> Credit | None:
    """Return the credit function ``text``, such as ``first_order(smoothing=-0.3)`` or ``module:function``.

    It is ``None`` for ``shared``: the measured reward of the environment is used.

    Raises:
        InputError: no credit function has this name or these options, or the object is not a function.
    """
    name, options = parse(text)
    if name == "shared":
        if options:
            raise InputError(f"credit={text}: shared has no options, got {', '.join(options)}; leave them out")
        return None
    if name not in CREDITS and ":" not in name:
        raise unknown("credit", name, ["shared", *CREDITS], " (or name your own as module:function)")
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
        for option, value in options.items():
            numbers(f"credit={name}", **LIMITS[option], **{option: value})
        if options.get("decay") and options.get("folds", 1) > 1:
            raise InputError(f"credit={name}: decay averages gradients of all labels, and folds keeps them apart; use one of them")
    return partial(credit, **options)


def credit_folds(credit: Credit | None) -> int:
    """Return the option ``folds`` of a built-in credit function; 1 if it has none, and for a user-defined function."""
    return int(credit.keywords.get("folds", 1)) if isinstance(credit, partial) and credit.func in CREDITS.values() else 1


def checked_credit(credit: Credit, run: Distillation, meter: RewardMeter, names: Sequence[str], temperature: Temperature) -> CreditByType:
    """Return the credit of the teachers by knowledge type, ``[rows, K]``, on the student's device.

    Raises:
        InputError: a user-defined credit function fails, or returns something else; or it is ``difference``, and the student has
            quantised layers, whose outputs change in jumps.
    """
    function = getattr(credit, "func", credit)  # that of a partial
    if function is CREDITS["difference"] and is_low_bit(run.student.network):
        raise InputError(
            "credit=difference moves the parameters of the student by less than a step of its quantised layers; use credit=first_order"
        )
    with faults_in(f"credit {getattr(function, '__name__', 'function')!r}", function):
        by_type: object = credit(run, meter, names, temperature)
    rows = len(run.observe().labels)
    if not isinstance(by_type, dict):
        raise InputError(f"credit: the function returned a {type(by_type).__name__}; return a dict of tensors")
    for name in names:
        if not isinstance(by_type.get(name), Tensor) or len(by_type[name]) != rows:
            raise InputError(f"credit: the function returned no tensor [{rows}, K] for {name!r}; return one for each of {list(names)}")
    if not is_built_in(function):
        for name in names:
            _check_values(name, by_type[name], run)
    return {name: by_type[name].detach().to(run.student.device) for name in names}


def _check_values(name: str, credit: Tensor, run: Distillation) -> None:
    """Refuse credit of another shape, and credit that is not finite where the student is.

    Raises:
        InputError: the credit of the knowledge type ``name`` is one of them.
    """
    batch = run.observe()
    expected = (len(batch.labels), 1 if name == "label" else batch.teacher_logits.shape[1])
    if tuple(credit.shape) != expected:
        raise InputError(f"credit: the function returned {name!r} of shape {tuple(credit.shape)}, expected {expected}")
    finite = batch.student.logits.isfinite().all(1).cpu()
    if not credit.detach().cpu()[finite].isfinite().all():
        raise InputError(f"credit: the function returned NaN or infinite numbers for {name!r}")
