"""Define suites: named sets of trials. In: a name. Out: parts, each with some policies on one task and pool."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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
    """

    task: str
    policies: tuple[str, ...]
    teachers: str | None = None
    updates: int | None = None
    population: int = 1

    def trials(self, suite: str, seeds: Sequence[int], command: str) -> list[Trial]:
        """Return a trial for each policy and seed, seed by seed, so that a stopped run has the same seeds of all policies."""
        settings = {} if self.updates is None else {"updates": self.updates}
        return [Trial(self.task, policy, seed, self.teachers, None, suite, settings, command) for seed in seeds for policy in self.policies]


@dataclass(frozen=True)
class Suite:
    """Parts that run with the same seeds.

    Attributes:
        about: description for ``kd-env list suites``.
        parts: parts of the suite.
        seeds: seeds of each policy.
    """

    about: str
    parts: tuple[Part, ...]
    seeds: range


_DEMO = (
    "uniform",
    "camkd_logits",
    "most_confident",
    "router",
    "reward_supervised",
    "oracle",
    "reinforce",
    "gradient_credit",
    "sb3:PPO",
)
_RIVALS = ("uniform", "router", "reward_supervised", "uniform_reward_ce")
_KNOWN = ("uniform", "most_confident", "self_stacking", "router", "stacking", "gradient_credit", "held_credit", "reinforce", "oracle")
_KNOWN_POOLS = ("complementary", "overconfident", "duplicated", "systematic", "drift")
SYSTEMS = (
    *_RIVALS,
    *("random_single", "most_confident", "best_single", "dev_weighted", "lr_ensemble", "lr_dev"),
    *("camkd", "camkd(scale=released)", "camkd_logits", "fitnet_mkd", "ebkd", "ebkd(scale=released)", "aekd"),
    *("mt_bert", "amtml", "mmkd", "mmkd(meta_split=reward)", "uncertainty", "entropy_dkd", "majority_sign", "correlation", "lookahead"),
    *("pkd", "distilbert", "all_knowledge", "random_hard", "random_soft", "mutual_learning", "peer_ensemble"),
    *("reinforce", "gradient_credit", "akd", "akd_hard", "mtkd_rl", "mtkd_rl_released", "exp3", "linucb", "sliding_ucb", "sb3:PPO"),
)
"""The published systems, their baselines and their rivals, each with its default options."""


def _singles(count: int) -> tuple[str, ...]:
    return tuple(f"single:{teacher}" for teacher in range(count))


SUITES = {
    "demo": Suite(
        "learned selection and the rules that it must beat, on handwritten digits in four domains",
        (Part("digits", _DEMO),),
        range(3),
    ),
    "systems": Suite(
        "every published system with its baselines and rivals, on four pools that reward different ways of selecting",
        (
            Part("digits", (*_singles(4), *SYSTEMS, "oracle"), "digits/experts", 1500, population=5),
            Part("digits", (*_singles(4), *SYSTEMS, "oracle"), "digits/mixed", 1500, population=5),
            Part("digits", (*_singles(3), *SYSTEMS), "digits/capacity", 1500, population=5),
            Part("domains", (*_singles(4), *SYSTEMS, "oracle"), "domains/experts", 500),
        ),
        range(5),
    ),
    "oracle": Suite(
        "regret where the answer is known: five pools of the digits whose best teachers are stated, one of which changes midway",
        tuple(Part("digits", _KNOWN, f"digits/{pool}", 1500, population=5) for pool in _KNOWN_POOLS),
        range(5),
    ),
}
