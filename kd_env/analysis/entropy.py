"""Measure how decided and how specific a selection is. In: a trace. Out: entropies of the teacher, in units of ln K.

A decision's weights are taken as probabilities of the teachers. The entropy of their mean says whether all teachers are used; the entropy
given the example says whether each example has its own teacher. The difference is the mutual information between example and teacher.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pandas as pd

from kd_env.analysis.decisions import FloatArray, decisions
from kd_env.errors import InputError


def entropies(trace: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """Return the entropies of a trace, in a table of one row. All but ``taught`` are over ln K and in [0, 1].

    Columns:

    - marginal: entropy of the mean weights;
    - given_group: mean entropy of the mean weights of the decision's group;
    - given_example: mean entropy of the mean weights of the decision's example, over all mini-batches with it;
    - given_decision: mean entropy of the decision's weights;
    - group_information: marginal minus given_group, the mutual information between group and teacher;
    - example_information: marginal minus given_example, the mutual information between example and teacher;
    - chance_information: example_information after the examples are exchanged at random. An example is decided about only a few times, so a
      policy that samples its choices seems to depend on the example; the information of such a policy is hardly above this value;
    - taught: share of the decisions that select a teacher. The others are left out.

    Args:
        seed: seed of the random exchange.

    Raises:
        InputError: no decision selects a teacher.
    """
    all_decisions = decisions(trace)
    total = all_decisions.weights.sum(1)
    taught = np.flatnonzero(total > 0)
    if not len(taught):
        raise InputError("entropies: no decision of the trace selects a teacher")
    weights = all_decisions.weights[taught] / total[taught, None]
    table = all_decisions.table.iloc[taught]
    example = table["example_id"].to_numpy()
    marginal = float(_entropy(weights.mean(0, keepdims=True)).item())
    given_group, given_example = (_entropy_given(weights, labels) for labels in (table["group"].to_numpy(), example))
    exchanged = _entropy_given(weights, np.random.default_rng(seed).permutation(example))
    return pd.DataFrame(
        {
            "marginal": [marginal],
            "given_group": given_group,
            "given_example": given_example,
            "given_decision": float(_entropy(weights).mean()),
            "group_information": marginal - given_group,
            "example_information": marginal - given_example,
            "chance_information": marginal - exchanged,
            "taught": len(taught) / len(total),
        }
    )


def _entropy(weights: FloatArray) -> FloatArray:
    """Return the entropy of each row over ln K, ``[n, K] -> [n]``; 0 where K is 1."""
    entropy: FloatArray = -(weights * np.log(np.where(weights > 0, weights, 1))).sum(1) / math.log(max(weights.shape[1], 2))
    return entropy


def _entropy_given(weights: FloatArray, labels: npt.NDArray[np.int64]) -> float:
    """Return the mean over decisions of the entropy of the mean weights of all decisions with the same label."""
    _, number, count = np.unique(labels, return_inverse=True, return_counts=True)
    mean = np.zeros((len(count), weights.shape[1]))
    np.add.at(mean, number, weights)
    return float(count @ _entropy(mean / count[:, None]) / len(weights))
