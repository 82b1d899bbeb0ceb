"""Call methods that a policy may have, and check what they return. In: a policy. Out: values for records and traces."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from kd_env.errors import InputError
from kd_env.policies.episode_view import EpisodeView
from kd_env.policies.faults import faults_of
from kd_env.policies.protocol import class_name
from kd_env.serialization import json_value
from kd_env.types import Observation

ROUNDING = 1e-4
"""How far outside [0, 1] an entropy may be."""


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
        if values is None:
            return None
        place = f"policy {class_name(policy)!r}: selection_entropy() returned"
        try:
            entropies = np.asarray(values, dtype=np.float64)
        except (TypeError, ValueError):
            raise InputError(f"{place} a {type(values).__name__}; return numbers [num_envs]") from None
        if entropies.ndim > 1 or not entropies.size:
            raise InputError(f"{place} an array of shape {entropies.shape}; return numbers [num_envs]")
        if (outside := (entropies < -ROUNDING) | (entropies > 1.0 + ROUNDING)).any():
            raise InputError(
                f"{place} {entropies[outside].flat[0]:g}; divide the entropy by that of equal probabilities, so that it is in [0, 1]"
            )
        return entropies

    return entropy
