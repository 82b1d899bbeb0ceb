"""Report errors of user-defined policies. In: a policy. Out: what its methods return, or one line that says what is wrong, and where."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kd_env.plugins import faults_in
from kd_env.policies.rules import RulePolicy


@contextmanager
def faults_of(policy: Any, method: str) -> Iterator[None]:
    """Turn exceptions of a policy's ``method`` into ``InputError``, unless the policy is built in; see :func:`kd_env.plugins.faults_in`."""
    policy_type = type(policy.rule if isinstance(policy, RulePolicy) else policy)
    with faults_in(f"policy {policy_type.__module__}:{policy_type.__qualname__}, {method}()", policy_type):
        yield
