"""Traces made by hand, as ``kd_env.analysis.traces`` reads them."""

import pandas as pd

COLUMNS = ["update", "slot", "example_id", "group", "teacher", "weight", "student_ce"]
TYPES = dict.fromkeys(["update", "example_id"], "int32") | dict.fromkeys(["slot", "group", "teacher"], "int16") | {"weight": "float32"}


def small_trace(rows, teachers=("p", "q")):
    """A trace with rows (update, slot, example, group, teacher, weight, student CE)."""
    trace = pd.DataFrame(rows, columns=COLUMNS).astype(TYPES).assign(reward=0.0)
    trace.attrs = {"group_names": ["a", "b"], "teacher_names": list(teachers), "trial": "t-0", "differentiable": False}
    return trace


def chosen(*teachers, ce=None, teacher_names=("p", "q")):
    """A trace with one slot, that teaches example u % 2 of group u % 2 at update u with one teacher, or with none (-1)."""
    losses = ce or [0.0] * len(teachers)
    rows = [(u, 0, u % 2, u % 2, k, float(k >= 0), losses[u]) for u, k in enumerate(teachers)]
    return small_trace(rows, teacher_names)
