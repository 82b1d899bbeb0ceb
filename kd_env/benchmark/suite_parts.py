"""Define what a suite consists of. In: tasks, pools, policies and settings by name. Out: trials."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kd_env.benchmark.trial import Trial


@dataclass(frozen=True)
class Part:
    """Some policies on one task and pool.

    Attributes:
        task: name of the task.
        policies: names of the policies, with options.
        teachers: pool of teachers. Default: the task's.
        updates: student updates of each trial. Default: the task's.
        population: number of seeds of a policy that run at once as one population, which is faster for small students.
        student: network of the student. Default: the task's.
        settings: other settings of all trials.
        own_settings: more settings of single policies, by their names.
        seeds: seeds of each policy. Default: the suite's.
        number: number of its table in the file, for messages.
    """

    task: str
    policies: tuple[str, ...]
    teachers: str | None = None
    updates: int | None = None
    population: int = 1
    student: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    own_settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    seeds: Sequence[int] | None = None
    number: int = field(default=1, compare=False)

    def settings_of(self, policy: str = "") -> dict[str, Any]:
        """Return all settings of the trials of a policy, or those that all policies share."""
        named = {"student": self.student, "updates": self.updates}
        return {**{name: value for name, value in named.items() if value is not None}, **self.settings, **self.own_settings.get(policy, {})}

    def trials(self, suite: str, seeds: Sequence[int], command: str) -> list[Trial]:
        """Return a trial for each policy and seed, seed by seed, so that a stopped run has the same seeds of all policies."""
        return [
            Trial(self.task, policy, seed, self.teachers, None, suite, self.settings_of(policy), command)
            for seed in seeds
            for policy in self.policies
        ]


@dataclass(frozen=True)
class Suite:
    """Parts that are reported together.

    Attributes:
        about: description for ``kd-env list suites``.
        parts: parts of the suite.
        seeds: seeds of each policy.
    """

    about: str
    parts: tuple[Part, ...]
    seeds: Sequence[int]
