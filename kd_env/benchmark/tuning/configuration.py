"""Define the tuned configuration of a policy: options and settings that were chosen on validation, and by how many trials."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from kd_env import spec

MARK = ", tuned "
"""Between the name of a policy and its number of validation trials, in the names of tuned policies."""


@dataclass(frozen=True)
class Configuration:
    """A configuration of a policy.

    Attributes:
        options: options of the policy.
        settings: settings of the environment.
        trials: number of validation trials of which it was the best.
    """

    options: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    trials: int = 0

    def of_policy(self, policy: str) -> str:
        """Return the name of a policy with these options added."""
        name, options = spec.parse(policy)
        return str(spec.Spec(name, {**options, **self.options}))

    def tuned_name(self, policy: str) -> str:
        """Return the name that records give to a policy with this configuration, as ``reinforce, tuned 12``."""
        return f"{spec.parse(policy)}{MARK}{self.trials}"

    def as_dict(self) -> dict[str, Any]:
        """Return the configuration as a record stores it."""
        return asdict(self)


def untuned_name(policy: str) -> str:
    """Return the name of a policy without what :meth:`Configuration.tuned_name` adds."""
    return policy.partition(MARK)[0]
