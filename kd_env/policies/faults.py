"""Call methods of a policy of the user's own. In: a policy. Out: what they return, or one line that says what is wrong, and where."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from kd_env.errors import InputError
from kd_env.plugins import faults_in
from kd_env.policies.episode_view import EpisodeView
from kd_env.policies.protocol import class_name
from kd_env.policies.rules import RulePolicy
from kd_env.serialization import json_value
from kd_env.types import Observation


@contextmanager
def faults_of(policy: Any, method: str) -> Iterator[None]:
    """Turn exceptions of a policy's ``method`` into ``InputError``, unless the policy is built in; see :func:`kd_env.plugins.faults_in`."""
    policy_type = type(policy.rule if isinstance(policy, RulePolicy) else policy)
    with faults_in(f"policy {policy_type.__module__}:{policy_type.__qualname__}, {method}()", policy_type):
        yield


def learned_by(policy: Any) -> dict[str, Any]:
    """Return what a policy learned, as ``{"learned": policy.learned_summary()}``; an empty dict if it has no such method.

    Raises:
        InputError: the method fails, or returns something that cannot be written as JSON.
    """
    if not callable(summary := getattr(policy, "learned_summary", None)):
        return {}
    with faults_of(policy, "learned_summary"):
        learned = summary()
    try:
        json.dumps(json_value(learned), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        expected = "return dicts, lists, numbers and text"
        raise InputError(f"policy {class_name(policy)!r}: learned_summary() cannot be written as JSON ({error}); {expected}") from None
    return {"learned": learned}


def selection_entropy_of(policy: Any, teacher_blocks: Sequence[str]) -> Callable[[Observation], np.ndarray | None] | None:
    """Return the policy's method ``selection_entropy``, which gets the blocks that its access includes; ``None`` if it has none.

    Args:
        teacher_blocks: blocks of an observation that show the teachers alone.
    """
    if not callable(method := getattr(policy, "selection_entropy", None)):
        return None

    view = EpisodeView(policy, teacher_blocks)

    def entropy(observation: Observation) -> np.ndarray | None:
        with faults_of(policy, "selection_entropy"):
            values = method(view.observation(observation))
        try:
            return None if values is None else np.asarray(values, dtype=np.float64)
        except (TypeError, ValueError):
            wrong = f"selection_entropy() returned a {type(values).__name__}"
            raise InputError(f"policy {class_name(policy)!r}: {wrong}; return numbers [num_envs]") from None

    return entropy
