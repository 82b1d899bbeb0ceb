"""Define what is searched for a policy: the settings that all policies share, and what its class declares.

All policies share the temperature, the student's learning rate, and the weight of distillation where hard labels are used.
Where they are not (``kd_weight=1``), the weight is not searched: it would bring labels into the loss.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from kd_env import spec
from kd_env.benchmark.trial import Trial
from kd_env.benchmark.tuning.configuration import Configuration
from kd_env.envs.settings import GROUPS
from kd_env.errors import InputError
from kd_env.policies.registry import PolicyClass
from kd_env.policies.search_space import Choice, Range

RATE = "optimizer.lr"
"""Name of the student's learning rate in a search."""
DIGITS = 3
"""Significant digits of the numbers that are tried."""
_SETTINGS = {field.name for group in GROUPS for field in fields(group)}
_SHARED = ("student", "updates", "num_students", "reward_labels", "label_seed", "optimizer", "device", "precision")
"""Settings that no policy may choose for itself: all share them, and of the optimizer the learning rate is searched for all."""

Value = str | float | bool


@dataclass(frozen=True)
class Space:
    """What is searched for one policy.

    Attributes:
        entries: what may be tried, by name.
        start: the values of the untuned policy, which are tried first.
        options: names in ``entries`` that are options of the policy; the others are settings.
        optimizer: the optimizer whose rate is searched.
    """

    entries: Mapping[str, Range | Choice]
    start: Mapping[str, Value]
    options: frozenset[str]
    optimizer: str

    def configuration(self, values: Mapping[str, Value], trials: int) -> Configuration:
        """Return the configuration with these values; those that are as before are left out."""
        changed = {name: value for name, value in values.items() if value != self.start[name]}
        options = {name: value for name, value in changed.items() if name in self.options}
        settings = {name: value for name, value in changed.items() if name not in self.options}
        if RATE in settings:
            name, known = spec.parse(self.optimizer)
            settings["optimizer"] = str(spec.Spec(name, {**known, "lr": settings.pop(RATE)}))
        return Configuration(options, settings, trials)


def space_of(trial: Trial) -> Space:
    """Return what is searched for the policy of a trial, from the settings of the trial on. Options in the policy's name stay as they are.

    Raises:
        InputError: the class declares something else than options and settings.
    """
    policy, distillation = trial.resolved.policy, trial.resolved.settings.distillation
    flat = trial.resolved.settings.flat()
    rate = _rate(distillation.optimizer)
    shared: dict[str, tuple[Range | Choice, Any]] = {
        "temperature": (Range(1.0, 8.0, log=True), distillation.temperature),
        RATE: (Range(rate / 10, rate * 10, log=True), rate),
    }
    if distillation.uses_hard_labels and "kd_weight" not in policy.env_options:
        shared["kd_weight"] = (Range(0.1, 0.9), distillation.kd_weight)
    defaults = _defaults(policy)
    fixed = {*policy.options, *trial.settings} | (set() if distillation.uses_hard_labels else {"kd_weight"})
    searched = {name: entry for name, entry in declared_space(policy).items() if name not in fixed}
    everything = shared | {name: (entry, defaults.get(name, flat.get(name))) for name, entry in searched.items()}
    return Space(
        {name: _including(policy, name, *pair) for name, pair in everything.items()},
        {name: start for name, (_, start) in everything.items()},
        frozenset(searched.keys() & defaults.keys()),
        distillation.optimizer,
    )


def rounded(value: Value) -> Value:
    """Return a number with few digits, as files hold it; any other value as it is."""
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value


def _rate(optimizer: str) -> float:
    from kd_env.student.optimizer import OptimizerOptions

    return OptimizerOptions.of(optimizer).lr


def declared_space(policy: PolicyClass) -> dict[str, Range | Choice]:
    """Return what the class of a policy declares in ``search_space``.

    Raises:
        InputError: it is something else than ranges and choices of the policy's options and of settings, or a setting is not its own.
    """
    defaults = _defaults(policy)
    declared = getattr(policy.make, "search_space", {})
    if not isinstance(declared, Mapping):
        raise InputError(f"policy {policy.name!r}: search_space={declared!r}; expected a dict of Range and Choice by name")
    for name, entry in declared.items():
        if name not in defaults and name not in _SETTINGS:
            raise InputError(f"policy {policy.name!r}: search_space: {spec.unknown('option or setting', name, {*defaults, *_SETTINGS})}")
        if name in _SHARED and name not in defaults:
            raise InputError(
                f"policy {policy.name!r}: search_space[{name!r}]: all policies of a comparison share this setting; leave it out"
            )
        if not isinstance(entry, Range | Choice):
            raise InputError(f"policy {policy.name!r}: search_space[{name!r}]={entry!r}; expected a Range or a Choice")
        for value in entry.values if isinstance(entry, Choice) and name in defaults else ():
            if not _can_be_written(name, value):
                raise InputError(f"policy {policy.name!r}: search_space[{name!r}]: {value!r} cannot be an option in a policy's name")
    return dict(declared)


def _can_be_written(option: str, value: Value) -> bool:
    try:
        return spec.parse(str(spec.Spec("policy", {option: value}))).options == {option: value}
    except InputError:
        return False


def _defaults(policy: PolicyClass) -> dict[str, Any]:
    """Return the options of a policy's class with their defaults; the first two parameters are the environment and the seed."""
    parameters = list(inspect.signature(policy.make).parameters.values())[2:]
    return {parameter.name: parameter.default for parameter in parameters if parameter.kind is not parameter.VAR_KEYWORD}


def _including(policy: PolicyClass, name: str, entry: Range | Choice, start: Any) -> Range | Choice:
    if isinstance(entry, Choice):
        return entry.including(start)
    if not isinstance(start, int | float) or isinstance(start, bool):
        raise InputError(f"policy {policy.name!r}: search_space[{name!r}] is a Range, and its default {start!r} is no number")
    if entry.log and start <= 0:
        raise InputError(
            f"policy {policy.name!r}: search_space[{name!r}] is logarithmic, and the default {start!r} is not above 0; "
            "use log=False, or another default"
        )
    return entry.including(start)
