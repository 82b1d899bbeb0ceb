"""Policies: ``protocol`` says what a policy is, ``registry`` finds and builds one by name, ``episode`` runs it.

``access`` says what a policy may read; ``context``, ``batch``, ``student_view``, ``rehearsal``, ``own_students``, ``own_credit`` and
``episode_view`` give it only that.
``rules`` turns the decisions of rules into actions. ``optional_methods`` calls the methods that only some policies have.
``search_space`` declares what is tuned.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kd_env.policies.batch import PolicyBatch
    from kd_env.policies.context import PolicyContext
    from kd_env.policies.episode import run_episode, run_population_episode
    from kd_env.policies.protocol import Transition
    from kd_env.policies.registry import make_policy
    from kd_env.policies.search_space import Choice, Range, SearchSpace

__all__ = [
    "Choice",
    "PolicyBatch",
    "PolicyContext",
    "Range",
    "SearchSpace",
    "Transition",
    "make_policy",
    "run_episode",
    "run_population_episode",
]

_MODULES = {
    "Choice": "search_space",
    "Range": "search_space",
    "SearchSpace": "search_space",
    "PolicyBatch": "batch",
    "PolicyContext": "context",
    "Transition": "protocol",
    "make_policy": "registry",
    "run_episode": "episode",
    "run_population_episode": "episode",
}


def __getattr__(name: str) -> Any:
    """Import a public name on first use."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"kd_env.policies.{_MODULES[name]}"), name)
