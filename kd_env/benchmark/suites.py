"""Suites: named sets of trials. In: a name. Out: the trials."""

from __future__ import annotations

from dataclasses import dataclass

from kd_env.benchmark.trial import Trial


@dataclass(frozen=True)
class Suite:
    """Policies on one task over some seeds."""

    about: str
    task: str
    policies: tuple[str, ...]
    seeds: range

    def trials(self, name: str, command: str) -> list[Trial]:
        """Every policy with every seed, seed by seed, so that a stopped run still compares like with like."""
        return [Trial(self.task, policy, seed, suite=name, command=command) for seed in self.seeds for policy in self.policies]


SUITES = {
    "demo": Suite(
        "learned selection against the rules it must beat, on handwritten digits in four domains",
        "digits",
        ("uniform", "camkd", "most_confident", "router", "reward_supervised", "oracle", "reinforce", "gradient_credit", "sb3:PPO"),
        range(3),
    ),
}
