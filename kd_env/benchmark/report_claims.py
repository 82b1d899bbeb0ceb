"""State what may be claimed about the policy with the highest score. In: the table and the records of a setting. Out: a `Claim`.

The policy is found by comparing test scores, so the tests must allow for that choice: all pairs of policies are compared, paired by seed,
and the p values are Holm-adjusted over all of these pairs, not only over those of the winner.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from kd_env.benchmark.records import Record
from kd_env.benchmark.statistics import FloatArray, holm, paired_p, pairs_to_decide
from kd_env.benchmark.summary import SEEDS_FOR_A_CLAIM, by_score

LEVEL = 0.05


class Claim(NamedTuple):
    """What the records show about the policy with the highest mean test score.

    Attributes:
        winner: name of the policy.
        above: policies whose score is significantly lower.
        below: policies whose score is significantly higher over the seeds in common, although their mean is lower.
        equal: policies from which it cannot be distinguished.
        few: policies that share too few seeds with it to be compared.
        pairs: number of compared pairs; 0 if there are too few seeds.
        advice: what would decide between it and the best policy from which it cannot be distinguished; empty if there is no such policy.
    """

    winner: str
    above: tuple[str, ...]
    below: tuple[str, ...]
    equal: tuple[str, ...]
    few: tuple[str, ...]
    pairs: int
    advice: str = ""

    def __str__(self) -> str:
        """Return what may be claimed as sentences."""
        if not self.above and not self.below and not self.equal:
            return f"{self.winner} has the highest mean test score, but with fewer than {SEEDS_FOR_A_CLAIM} seeds no order may be claimed."
        compared = f"paired t tests, Holm-adjusted over all {self.pairs:,} pairs of policies that are not privileged"
        few = f" Not compared, with fewer than {SEEDS_FOR_A_CLAIM} seeds in common: {_some(self.few)}." if self.few else ""
        if self.below:
            few = f" Over the seeds in common it is below {_some(self.below)}: compare policies of equal seeds.{few}"
        if not self.above and not self.below:
            return f"{self.winner} is not distinguishable from any other policy ({compared}): {_some(self.equal)}.{few}{self.advice}"
        others = len(self.above) + len(self.below) + len(self.equal)
        above = f"{self.winner} is above {len(self.above)} of {others} other policies with p < {LEVEL} ({compared})."
        return f"{above} It is not distinguishable from {_some(self.equal)}.{few}{self.advice}" if self.equal else above + few


class Pairs(NamedTuple):
    """All pairs of policies of a setting, the highest mean test score first.

    Attributes:
        policies: names of the P policies, without privileged ones.
        scores: test score of each policy and seed, ``[P, seeds]``; nan where there is none.
        p: Holm-adjusted p value of each pair, ``[P, P]``; nan on the diagonal and for pairs with too few seeds in common.
    """

    policies: tuple[str, ...]
    scores: FloatArray
    p: FloatArray

    @property
    def differences(self) -> FloatArray:
        """Mean difference of the row's policy to the column's over their common seeds, ``[P, P]``; nan without common seeds."""
        gaps = self.scores[:, None] - self.scores[None]
        common = np.isfinite(gaps)
        total, count = np.where(common, gaps, 0.0).sum(2), common.sum(2)
        mean: FloatArray = np.divide(total, count, out=np.full_like(total, math.nan), where=count > 0)
        return mean


def _some(names: Sequence[str], most: int = 8) -> str:
    more = len(names) - most
    return ", ".join(names) if more <= 1 else f"{', '.join(names[:most])} and {more} others"


def all_pairs(table: pd.DataFrame, records: Sequence[Record]) -> Pairs | None:
    """Return the pairs of a setting; None if fewer than two policies that are not privileged have test scores."""
    candidates = by_score(table[(table["access"] != "privileged") & table["test"].notna()])
    policies = tuple(candidates["policy"])
    if len(policies) < 2:
        return None
    seeds = sorted({record["seed"] for record in records})
    scores = np.full((len(policies), len(seeds)), math.nan)
    row = {policy: index for index, policy in enumerate(policies)}
    for record in records:
        if record["policy"] in row and record["test"] is not None:
            scores[row[record["policy"]], seeds.index(record["seed"])] = record["test"]
    p = np.full((len(policies), len(policies)), math.nan)
    first, second = np.triu_indices(len(policies), 1)
    values = paired_p(scores[first] - scores[second], SEEDS_FOR_A_CLAIM)
    tested = np.isfinite(values)
    if tested.any():
        values[tested] = holm(values[tested])
    p[first, second] = p[second, first] = values
    return Pairs(policies, scores, p)


def claim(pairs: Pairs | None) -> Claim | None:
    """Return the claim of a setting; None if there are no pairs."""
    if pairs is None:
        return None
    policies, p = pairs.policies, pairs.p
    difference = pairs.differences[0]
    above = tuple(policies[n] for n in np.flatnonzero((p[0] < LEVEL) & (difference > 0)))
    below = tuple(policies[n] for n in np.flatnonzero((p[0] < LEVEL) & (difference <= 0)))
    equal = tuple(name for name, value in zip(policies, p[0], strict=True) if value >= LEVEL)
    few = tuple(name for name, value in zip(policies[1:], p[0, 1:], strict=True) if math.isnan(value))
    return Claim(policies[0], above, below, equal, few, int(np.isfinite(p).sum() // 2), _advice(pairs, equal))


def _advice(pairs: Pairs, equal: Sequence[str]) -> str:
    """Return how many more seeds would decide between the winner and the best policy that cannot be told apart from it."""
    if not equal:
        return ""
    differences = pairs.scores[0] - pairs.scores[pairs.policies.index(equal[0])]
    differences = differences[np.isfinite(differences)]
    if (p := float(paired_p(differences[None])[0])) < LEVEL:
        alone = f" {pairs.policies[0]} and {equal[0]} alone would differ with p = {p:.3f}"
        return f"{alone}; after the adjustment it is not significant."
    needed = pairs_to_decide(differences)
    start = f" To decide between {pairs.policies[0]} and {equal[0]} alone,"
    if needed is None:
        return f"{start} more than 1,000 seeds would be needed at the observed difference."
    more = max(needed - len(differences), 1)  # with very few seeds, p above the level can go with a power above 80 %
    return f"{start} about {more} more seed{'s' if more > 1 else ''} would be needed at the observed difference (80 % power)."
