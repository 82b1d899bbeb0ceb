"""Ask which teachers credit favours while a student is taught. In: an environment and a policy. Out: credit by update and label smoothing.

Credit should favour the right teachers as long as they help. First-order credit does so while the student is wrong, and turns against them
once it is taught well: what is left of the held-out gradient is about examples that the student is too sure of. Label smoothing of the
held-out loss below zero keeps the direction.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure

from kd_env.analysis.canvas import PlainFigure
from kd_env.analysis.credit import teach_and_listen
from kd_env.analysis.palette import COLOURS, DASHES
from kd_env.envs.credit_functions import make_credit
from kd_env.envs.credit_scale import normalize
from kd_env.envs.step import Step
from kd_env.errors import InputError
from kd_env.teachers.best_teachers import best_teachers

CHOICES = ("best", "most_confident")


def credit_of_choices(env: Any, policy: Any, smoothings: Sequence[float], seed: int = 0, every: int = 50) -> pd.DataFrame:
    """Return the mean normalised credit of the best and of the most confident teacher of each instance.

    Args:
        env: a vector environment of one student. Its pool must state the best teachers.
        policy: the policy that teaches; it decides which states the student passes through.
        smoothings: label smoothings of the held-out loss.
        every: number of updates between two measurements.

    Returns:
        Columns update, smoothing, choice (``best`` or ``most_confident``) and credit, in units of the standard deviation over teachers.

    Raises:
        InputError: the best teachers are not known, or ``every`` is below 1 or not below the number of updates.
    """
    if every < 1:
        raise InputError(f"credit_of_choices: every={every}; measure every 1 or more updates")
    selection = env.unwrapped.selection
    if best_teachers(selection.pool, selection.data.task) is None:
        raise InputError(f"credit_of_choices: the best teachers of pool {selection.pool.name!r} are not known; use another pool")
    functions = {smoothing: make_credit(f"first_order(smoothing={smoothing})") for smoothing in smoothings}
    rows: list[tuple[int, float, str, float]] = []

    def listen(step: Step) -> None:
        run = selection.distillation
        if run.done.all() or int(run.update[0]) % every:
            return
        batch = run.observe()
        best = best_teachers(selection.pool, selection.data.task, float(batch.progress[0]))
        assert best is not None
        confident = batch.teacher_logits.softmax(2).amax(2).argmax(1)
        teachers = {"best": torch.from_numpy(best[batch.example_ids]), "most_confident": confident.cpu()}
        for smoothing, function in functions.items():
            assert function is not None
            meter = copy.copy(selection.meter)  # keeps the gradient by which the policy is paid
            meter.state = copy.deepcopy(selection.meter.state)
            by_type = function(run, meter, list(run.loss.terms), None)
            total = torch.stack([term.strength * by_type[name] for name, term in run.loss.terms.items()]).sum(0)
            credit = normalize(total).cpu()  # [B, K]
            for choice, teacher in teachers.items():
                rows.append((int(run.update[0]), smoothing, choice, float(credit.gather(1, teacher[:, None]).mean())))

    teach_and_listen(env, policy, seed, listen)
    if not rows:
        raise InputError(f"credit_of_choices: every={every} is not below the number of updates; measure more often")
    return pd.DataFrame(rows, columns=["update", "smoothing", "choice", "credit"])


def credit_direction_figure(table: pd.DataFrame) -> Figure:
    """Draw the credit of the best teacher (solid) and of the most confident one (dashed), with a panel for each policy that taught.

    Args:
        table: rows of :func:`credit_of_choices`, with a column ``taught_by``; seeds are averaged.
    """
    names = list(table["taught_by"].unique())
    figure = PlainFigure(figsize=(4.2 * len(names) + 1.2, 3.2), layout="constrained")
    smoothings = sorted(table["smoothing"].unique(), reverse=True)
    axes = np.atleast_1d(figure.subplots(1, len(names), sharey=True))
    for panel, name in zip(axes, names, strict=True):
        means = table[table["taught_by"] == name].groupby(["smoothing", "choice", "update"])["credit"].mean()
        for colour, smoothing in zip(COLOURS, smoothings, strict=False):
            for dashes, choice in zip(DASHES, CHOICES, strict=False):
                line = means[smoothing, choice]
                panel.plot(line.index, line, dashes, color=colour, label=f"{smoothing:g}" if choice == "best" else None)
        panel.axhline(0.0, color="#888888", linewidth=0.8)
        panel.set_title(f"taught by {name}", fontsize=10)
        panel.set_xlabel("student updates")
        panel.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("mean normalised credit")
    figure.legend(*axes[0].get_legend_handles_labels(), title="label smoothing", loc="outside right upper", frameon=False, fontsize=9)
    return figure
