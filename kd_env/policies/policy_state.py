"""Save and restore the state of a policy between two updates, so that it can continue in another process.

In: a policy. Out: its state, as values that :func:`kd_env.serialization.pack` takes, or a policy in that state. A policy has either

- ``state()`` and ``load_state(state)``: everything that changes while it acts and learns, including random generators and optimizers. An
  empty dict means that nothing changes. The policy is built as for a new trial before its state is loaded;
- or ``save(path)`` and ``load(path, context)``, with the same content in a file.

A policy with neither, or one that runs its own loop, has no state that can be saved.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from kd_env.policies.context import PolicyContext
from kd_env.policies.faults import faults_of
from kd_env.policies.protocol import OwnsLoop
from kd_env.policies.rules import RulePolicy


def has_state(policy: Any) -> bool:
    """Return whether the state of a policy can be saved."""
    return not isinstance(policy, OwnsLoop) and (_has(policy, "state", "load_state") or _is_saved_as_file(policy))


def state_of(policy: Any, folder: Path) -> dict[str, Any]:
    """Return the state of a policy for which :func:`has_state` holds; ``folder`` is for a temporary file."""
    if not _is_saved_as_file(policy):
        with faults_of(policy, "state"):
            state: dict[str, Any] = _stateful(policy).state()
        return state
    with tempfile.TemporaryDirectory(dir=folder) as temporary, faults_of(policy, "save"):
        policy.save(f"{temporary}/policy")
        return {"file": Path(temporary, "policy").read_bytes()}


def with_state(policy: Any, state: dict[str, Any], context: PolicyContext, folder: Path) -> Any:
    """Return a newly built ``policy`` in the state that :func:`state_of` returned; ``folder`` is for a temporary file.

    Raises:
        InputError: the policy refuses the state.
    """
    if not _is_saved_as_file(policy):
        with faults_of(policy, "load_state"):
            _stateful(policy).load_state(state)
        return policy
    with tempfile.TemporaryDirectory(dir=folder) as temporary, faults_of(policy, "load"):
        path = Path(temporary, "policy")
        path.write_bytes(state["file"])
        return type(policy).load(str(path), context)


def no_state_message(policy: Any, name: str) -> str:
    """Return a message for the user: why a trial of this policy cannot be resumed."""
    reason = "it runs its own loop" if isinstance(policy, OwnsLoop) else "give it state() and load_state() to resume within a trial"
    return f"policy {name}: a trial that is stopped starts over; {reason}"


def _stateful(policy: Any) -> Any:
    return policy.rule if isinstance(policy, RulePolicy) else policy


def _has(policy: Any, *methods: str) -> bool:
    return all(callable(getattr(_stateful(policy), method, None)) for method in methods)


def _is_saved_as_file(policy: Any) -> bool:
    return not _has(policy, "state", "load_state") and not isinstance(policy, RulePolicy) and _has(policy, "save", "load")
