"""Compare the choices of policies. In: two traces, or a trace and the weights of a rule. Out: the share of equal choices.

The choice of a decision is the teacher with the largest weight. Where teachers have equal weights, the choice is drawn among them, and the
share is the probability of equal draws. So `uniform` over K teachers agrees with any choice of one teacher in 1/K of the decisions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
import pandas as pd

from kd_env.analysis.decisions import Decisions, FloatArray, choices, decisions, matched
from kd_env.analysis.seeds import Traces, for_each_seed, over_seeds
from kd_env.analysis.traces import update_bins
from kd_env.errors import InputError


def agreement(trace: pd.DataFrame, other: pd.DataFrame | FloatArray, by: Sequence[str] = (), bins: int = 20) -> pd.DataFrame:
    """Return the share of decisions in which two policies choose the same teacher.

    Args:
        trace: trace of the policy.
        other: trace of another policy with the same seed, whose decisions are matched by update, slot and example; or the weights of a rule
            for every training example, ``[N, K]``, which are matched by example, see :func:`kd_env.analysis.references.rule_weights`.
        by: ``update``, ``group``, both, or neither for one row.
        bins: number of bins of the updates.

    Returns:
        A table with the columns ``by``, agreement, chance and decisions (their number). Chance is the share that independent choices with
        the same frequencies would have.

    Raises:
        InputError: the traces have no decision in common, or there are no weights for an example.
    """
    first, second = matched(trace, other) if isinstance(other, pd.DataFrame) else _with_rule(decisions(trace), other)
    choice, other_choice = choices(first.weights), choices(second.weights)
    table = first.table.assign(all=0, same=(choice * other_choice).sum(1))
    if "update" in by:
        table["update"] = update_bins(table, bins)
    keys = list(by) or ["all"]
    rows = []
    for values, part in table.groupby(keys):
        places = part.index.to_numpy()
        chance = float(choice[places].mean(0) @ other_choice[places].mean(0))
        rows.append([*values, part["same"].mean(), chance, len(part)])
    result = pd.DataFrame(rows, columns=[*keys, "agreement", "chance", "decisions"])
    return result if by else result.drop(columns="all")


def agreement_table(traces: Mapping[str, Traces], rules: Mapping[str, FloatArray] | None = None) -> pd.DataFrame:
    """Return the agreement of each pair of policies, both ways round, averaged over their common seeds.

    Args:
        traces: traces by policy and seed.
        rules: weights of rules for every training example, ``[N, K]``, by name.

    Returns:
        A table with the columns policy, other, agreement, low, high and n, see :func:`~kd_env.analysis.seeds.over_seeds`.

    Raises:
        InputError: there is nothing to compare, or a pair has no seed in common.
    """
    if not traces or len(traces) + len(rules or {}) < 2:
        raise InputError("agreement_table: nothing to compare; give traces of two policies, or of one policy and a rule")
    tables = []
    for policy, other in combinations(traces, 2):
        pair = for_each_seed(agreement, traces[policy], traces[other])
        tables += [pair.assign(policy=policy, other=other), pair.assign(policy=other, other=policy)]
    for name, weights in (rules or {}).items():
        tables += [
            for_each_seed(agreement, of_policy, other=weights).assign(policy=policy, other=name) for policy, of_policy in traces.items()
        ]
    return over_seeds(pd.concat(tables, ignore_index=True), "agreement", ["policy", "other"])


def _with_rule(first: Decisions, weights: FloatArray) -> tuple[Decisions, Decisions]:
    examples = first.table["example_id"].to_numpy()
    if examples.max() >= len(weights) or weights.shape[1] != first.weights.shape[1]:
        raise InputError(
            f"agreement: weights of shape {np.shape(weights)} for a trace of {first.weights.shape[1]} teachers with example "
            f"{examples.max()}; give weights [N, K] of every training example of the same task and pool"
        )
    return first, Decisions(first.table, np.asarray(weights, dtype=np.float64)[examples])
