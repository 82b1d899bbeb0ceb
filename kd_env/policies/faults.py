"""Report what a policy of the user's own raises. In: a policy. Out: its exceptions as one line with the file and the line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kd_env.plugins import faults_in
from kd_env.policies.rules import RulePolicy


@contextmanager
def faults_of(policy: Any, method: str) -> Iterator[None]:
    """Turn exceptions of a policy's ``method`` into ``InputError``, unless the policy is built in; see :func:`kd_env.plugins.faults_in`."""
    kind = type(policy.rule if isinstance(policy, RulePolicy) else policy)
    with faults_in(f"policy {kind.__module__}:{kind.__qualname__}, {method}()", kind):
        yield
