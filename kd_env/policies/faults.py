"""Report what a policy of the user's own raises. In: a policy. Out: its exceptions as one line with the file and the line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kd_env import spec
from kd_env.errors import InputError
from kd_env.policies.rules import RulePolicy

OURS = ("agents", "baselines", "kd_env")
"""Packages whose exceptions are faults of this project: they keep their traceback."""


@contextmanager
def faults_of(policy: Any, method: str) -> Iterator[None]:
    """Turn exceptions of a policy's ``method`` into ``InputError`` with its text, file and line, unless the policy is built in.

    ``sys.exit`` counts as an exception: it must not end a run as if it were finished.
    """
    try:
        yield
    except InputError:
        raise
    except (Exception, SystemExit) as error:
        kind = type(policy.rule if isinstance(policy, RulePolicy) else policy)
        if kind.__module__.partition(".")[0] in OURS:
            raise
        raise spec.fault(f"policy {kind.__module__}:{kind.__qualname__}, {method}()", error, kind) from error
