"""Define access classes: what a policy may read. A policy class declares its access class, and can read only the data of that class."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

from kd_env.distillation.learning_options import LearningOptions
from kd_env.envs.actions import ActionLayout, make_action
from kd_env.envs.rewards import make_reward
from kd_env.envs.settings import Settings
from kd_env.errors import InputError
from kd_env.knowledge.terms import parse_terms
from kd_env.types import Decision

ACCESS = (
    "nothing",
    "teacher outputs",
    "student outputs",
    "train labels",
    "gradient",
    "reward scalar",
    "reward gradient",
    "reward labels",
    "privileged",
)
"""Access classes, in the order of reports. A later class need not include an earlier one, see :data:`ALLOWED`."""
SEPARATOR = " + "
"""Joins the access classes of a policy if no single class includes all that it reads."""
DEFAULT_ACCESS = "reward gradient"
"""Access of a class that declares none: observations, rewards and credit, but no labels."""

TEACHERS, STUDENT, LABELS, GRADIENT, REWARD, REWARD_LABELS, GROUPS = (
    "the teachers' outputs",
    "the student's outputs",
    "the training labels",
    "the student's gradients",
    "rewards",
    "the labels of the reward split",
    "the groups of the examples",
)

ALLOWED: dict[str, frozenset[str]] = {
    "nothing": frozenset(),
    "teacher outputs": frozenset({TEACHERS}),
    "student outputs": frozenset({TEACHERS, STUDENT}),
    "train labels": frozenset({TEACHERS, STUDENT, LABELS}),
    "gradient": frozenset({TEACHERS, STUDENT, LABELS, GRADIENT}),
    "reward scalar": frozenset({TEACHERS, STUDENT, REWARD}),
    "reward gradient": frozenset({TEACHERS, STUDENT, REWARD}),
    "reward labels": frozenset({TEACHERS, STUDENT, GRADIENT, REWARD, REWARD_LABELS}),
    "privileged": frozenset({TEACHERS, STUDENT, LABELS, GRADIENT, REWARD, REWARD_LABELS, GROUPS}),
}
"""What each access class includes. It does not cover the data from which the environment computes rewards: see :func:`effective_access`."""


NEEDS: dict[str, str] = {}
"""What each method and property decorated by :func:`needs` gives, by its name, such as ``context.reward_positions``."""


Method = TypeVar("Method", bound=Callable[..., Any])


def needs(resource: str, object_name: str) -> Callable[[Method], Method]:
    """Decorate a method that gives ``resource`` to a policy: it raises an error if the policy's access does not include that.

    The object has the attributes ``name`` and ``access`` of the policy; policies call it ``object_name``.
    """

    def decorate(method: Method) -> Method:
        name = f"{object_name}.{method.__name__}"
        NEEDS[name] = resource

        @functools.wraps(method)
        def checked(self: Any, *args: Any, **options: Any) -> Any:
            require(self.name, self.access, name, resource)
            return method(self, *args, **options)

        return cast(Method, checked)

    return decorate


def require(policy: str, access: str, name: str, resource: str) -> None:
    """Raise an error if ``access`` does not include ``resource``, which the policy reads as ``name``."""
    if resource not in ALLOWED[access]:
        raise refuse(policy, access, name, resource)


def refuse(policy: str, access: str, name: str, resource: str) -> InputError:
    """Return the error of a policy that reads ``name``, which its access does not include."""
    including = next(wider for wider in ACCESS if {*ALLOWED[access], resource} <= ALLOWED[wider])
    return InputError(
        f"policy {policy!r} reads {name}, and its access {access!r} does not include {resource}; "
        f"declare access = {including!r} in its class"
    )


def require_no_gradient(policy: str, access: str, decision: Decision) -> None:
    """Check that a decision does not carry a gradient, unless the policy may read the gradients and the training labels.

    The student's loss is backpropagated into the tensors of a decision, and their gradients tell the student's outputs and the labels.

    Raises:
        InputError: it carries one.
    """
    if decision.differentiable and not {GRADIENT, LABELS} <= ALLOWED[access]:
        wider = next(wider for wider in ACCESS if {*ALLOWED[access], GRADIENT, LABELS} <= ALLOWED[wider])
        raise InputError(
            f"policy {policy!r}: its decision carries a gradient, by which it would read {GRADIENT} and {LABELS}, and its access is "
            f"{access!r}; detach the tensors of the decision, or declare access = {wider!r} in its class"
        )


def _credit_reads_labels(settings: Settings) -> bool:
    """Return whether credit is also paid for the hard label, or for a knowledge type that compares labels."""
    distillation = settings.distillation
    if settings.reward.credit == "shared" or not distillation.uses_hard_labels:
        return False
    terms = parse_terms(distillation.knowledge)
    kind = make_action(settings.interface.action, ActionLayout(1, tuple(term.name for term in terms)))
    return kind.decides_knowledge or any(term.knowledge.reads_labels for term in terms)


class Restricted:
    """Base class of what a policy is handed. Methods and properties with :func:`needs` check the access class, which cannot be set."""

    def __init__(self, name: str, access: str) -> None:
        """Keep the name of the policy, for errors, and its access class."""
        self._name, self._access = name, access

    @property
    def name(self) -> str:
        """Name of the policy."""
        return self._name

    @property
    def access(self) -> str:
        """Access class of the policy."""
        return self._access


def effective_access(access: str, settings: Settings) -> str:
    """Return what a policy reads under ``settings``: what it declares, and more where the settings show or pay more.

    Returns:
        One access class, or several joined by ``" + "``, least first, where none of them includes the others.
    """
    if settings.reward.credit != "shared" and access == "reward scalar":
        access = "reward gradient"
    reads = {access}
    if settings.interface.observe_labels or make_reward(settings.reward.reward).reads_labels:
        reads.add("train labels")
    if REWARD in ALLOWED[access] and _credit_reads_labels(settings):
        reads.add("train labels")
    if settings.distillation.reward_ce > 0.0 or settings.distillation.calibrate_teachers:
        reads.add("reward labels")
    if settings.distillation.teacher_learning:
        reads.add("reward labels" if LearningOptions.of(settings.distillation.teacher_learning).exam == "reward" else "train labels")
    widest = [name for name in ACCESS if name in reads and not any(ALLOWED[name] < ALLOWED[other] for other in reads)]
    return SEPARATOR.join(widest)
