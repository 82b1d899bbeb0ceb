"""Compare two policies example by example. In: their traces, and which teachers are right. Out: who chose a right teacher."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from kd_env.analysis.decisions import FloatArray, choices, matched
from kd_env.errors import InputError

OUTCOMES = ("both right", "only first right", "only second right", "neither right")
"""Outcomes of a decision that two policies made about the same example."""


def compare(trace: pd.DataFrame, other: pd.DataFrame, right: FloatArray) -> pd.DataFrame:
    """Return a row per example with the choices of two policies, averaged over the decisions about it.

    A policy is right if the teacher with its largest weight is right; see :mod:`kd_env.analysis.agreement` for equal weights. No teacher is
    never right.

    Args:
        trace: trace of the first policy.
        other: trace of the second policy with the same seed.
        right: whether each teacher is right for each training example, ``[N, K]``, such as
            :func:`kd_env.analysis.references.correct_teachers` (its answer is the label), or the oracle's weights.

    Returns:
        A table with the columns example_id, group, choice and other_choice (the most frequent teacher, -1 for none), disagreement (share of
        the decisions in which the choices differ), the shares of :data:`OUTCOMES`, ce and other_ce (mean student cross-entropy in nats),
        and decisions (their number). The largest disagreement comes first.

    Raises:
        InputError: the traces have no decision in common, or ``right`` has no row for an example.
    """
    first, second = matched(trace, other)
    examples = first.table["example_id"].to_numpy()
    if examples.max() >= len(right) or np.shape(right)[1] != first.weights.shape[1]:
        raise InputError(
            f"compare: right has shape {np.shape(right)}; give [N, K] of every training example, for the teachers of the traces"
        )
    choice, other_choice = choices(first.weights), choices(second.weights)
    is_right = np.asarray(right, dtype=np.float64)[examples]
    a, b = ((chosen[:, :-1] * is_right).sum(1) for chosen in (choice, other_choice))
    columns = dict(zip(OUTCOMES, (a * b, a * (1 - b), (1 - a) * b, (1 - a) * (1 - b)), strict=True))
    table = first.table[["example_id", "group"]].assign(
        disagreement=1 - (choice * other_choice).sum(1), **columns, ce=first.table["student_ce"], other_ce=second.table["student_ce"]
    )
    means = table.groupby(["example_id", "group"]).mean()
    means["decisions"] = table.groupby(["example_id", "group"]).size()
    ids = means.index.get_level_values("example_id")
    means.insert(0, "choice", _most_frequent(choice, examples).reindex(ids).to_numpy())
    means.insert(1, "other_choice", _most_frequent(other_choice, examples).reindex(ids).to_numpy())
    return means.reset_index().sort_values("disagreement", ascending=False, kind="stable", ignore_index=True)


def outcomes(comparison: pd.DataFrame, by: Sequence[str] = ()) -> pd.DataFrame:
    """Return the share of decisions with each outcome, with columns ``by``, outcome and share.

    Args:
        comparison: table of :func:`compare`.
        by: columns to group by, such as ``group``.
    """
    keys = list(by)
    weighted = comparison[list(OUTCOMES)].mul(comparison["decisions"], axis=0)
    table = pd.concat([comparison[keys], weighted], axis=1).melt(keys, var_name="outcome", value_name="share")
    sums = table.groupby([*keys, "outcome"], sort=False)["share"].sum().reset_index()
    total = sums.groupby(keys)["share"].transform("sum") if keys else sums["share"].sum()
    return sums.assign(share=sums["share"] / total)


def _most_frequent(chosen: FloatArray, examples: np.ndarray) -> pd.Series:
    """Return the most frequent choice about each example, ``[n, K + 1]`` -> by example; the last column is -1."""
    counts = pd.DataFrame(chosen).groupby(examples).sum()
    return counts.idxmax(axis=1).replace(chosen.shape[1] - 1, -1)
