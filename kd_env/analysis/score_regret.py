"""Compute what a policy loses to a reference such as the oracle, in score or in cross-entropy. In: records or traces. Out: a table.

Regret is paired by seed: equal seeds start from equal students and see the examples in the same order. It is 0 for the reference itself.
:func:`~kd_env.analysis.seeds.over_seeds` averages it and adds the interval.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import pandas as pd

from kd_env.analysis.decisions import matched
from kd_env.errors import InputError


def score_regret(
    records: Sequence[Mapping[str, Any]], reference: str = "oracle", score: Literal["test", "validation", "reward_split"] = "test"
) -> pd.DataFrame:
    """Return the reference's score minus each policy's, with columns policy, seed and regret.

    Args:
        records: records of one setting. Trials without a score, as after divergence, are left out.
        reference: policy to compare with.
        score: field of the record.

    Raises:
        InputError: the reference has no record with a score, or a policy has several records of one seed.
    """
    scores = pd.DataFrame([[r["policy"], r["seed"], r[score]] for r in records], columns=["policy", "seed", "score"]).dropna()
    if (repeated := scores.duplicated(["policy", "seed"])).any():
        policy, seed, _ = scores[repeated].iloc[0]
        raise InputError(
            f"score_regret: policy {policy!r} has several records of seed {seed}; choose one setting (policy, pool, task and env options)"
        )
    of_reference = scores[scores["policy"] == reference].set_index("seed")["score"]
    if of_reference.empty:
        raise InputError(
            f"score_regret: no record of policy {reference!r} has a {score} score; run it with the same seeds, or name another reference"
        )
    scores["regret"] = scores["seed"].map(of_reference) - scores["score"].astype(float)
    return scores.dropna()[["policy", "seed", "regret"]].reset_index(drop=True)


def loss_regret(trace: pd.DataFrame, reference: pd.DataFrame, last: float = 0.25) -> pd.DataFrame:
    """Return the student's mean cross-entropy minus the reference's for each group, with columns group, regret and decisions.

    The cross-entropy is that of the training examples of the last updates, before each update, in nats. It is what a trace knows of groups;
    records have one score for all groups.

    Args:
        trace: trace of the policy.
        reference: trace of the reference with the same seed.
        last: fraction of the updates, from the end.

    Raises:
        InputError: the traces have no decision in common, or their examples have no labels.
    """
    of_policy, of_reference = matched(trace, reference)
    table = of_policy.table.assign(regret=of_policy.table["student_ce"] - of_reference.table["student_ce"])
    first_update = table["update"].min() + (1 - last) * (table["update"].max() + 1 - table["update"].min())
    table = table[(table["update"] >= first_update) & table["regret"].notna()]
    if table.empty:
        raise InputError("loss_regret: no example of the last updates has a label, so the student's cross-entropy is unknown")
    return table.groupby("group")["regret"].agg(regret="mean", decisions="size").reset_index()
