"""Group examples by difficulty. In: traces of a reference policy. Out: a level per example, and the selection at each level.

The difficulty of an example is the mean cross-entropy of the reference's students on it, over all of their mini-batches with the example
and over all seeds. So an example is difficult if those students learn it late or never.
"""

from __future__ import annotations

import pandas as pd

from kd_env.analysis.decisions import decisions
from kd_env.analysis.seeds import Traces
from kd_env.analysis.traces import selection_by_group
from kd_env.errors import InputError


def difficulty(reference: Traces) -> pd.Series:
    """Return the difficulty of each example: the mean student cross-entropy in nats, indexed by example_id.

    Args:
        reference: traces of one policy by seed. Examples without a label are left out.

    Raises:
        InputError: there are no traces, or no example has a label.
    """
    if not reference:
        raise InputError("difficulty: no traces; give the traces of a policy by seed, see kd_env.analysis.seeds.read_traces")
    tables = [decisions(trace).table for trace in reference.values()]
    of_examples = pd.concat(tables).groupby("example_id")["student_ce"].mean().dropna()
    if of_examples.empty:
        raise InputError("difficulty: no example of the traces has a label, so the student's cross-entropy is unknown")
    return of_examples.rename("difficulty")


def difficulty_levels(reference: Traces, levels: int = 3) -> pd.Series:
    """Return the level of each example, indexed by example_id: 0 for the easiest part, ``levels - 1`` for the hardest.

    The parts are equally large. With three levels they are the terciles.
    """
    rank = difficulty(reference).rank(method="first") - 1
    return (rank * levels // len(rank)).astype(int).rename("level")


def selection_by_difficulty(trace: pd.DataFrame, levels: pd.Series, bins: int = 20) -> pd.DataFrame:
    """Return the mean weight of each teacher for each level, with columns update (the middle of its bin), level, teacher and weight.

    Args:
        levels: level of each example, see :func:`difficulty_levels`. Examples without a level are left out.
    """
    level = trace["example_id"].map(levels)
    known = trace.assign(group=level)[level.notna()].astype({"group": int})
    known.attrs = trace.attrs
    return selection_by_group(known, bins).rename(columns={"group": "level"})
