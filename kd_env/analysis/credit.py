"""Compare credit with the improvement that follows. In: an environment and a policy, or a table. Out: tables and correlations.

Credit predicts, to first order, how much the held-out loss falls. Both measurements teach one student from a seed, on the held-out examples
of the credit's own gradient, so the two numbers are about the same loss.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from scipy import stats
from torch import Tensor

from kd_env.envs.credit import counterfactual
from kd_env.envs.selection import Selection
from kd_env.envs.step import Step
from kd_env.errors import InputError
from kd_env.policies import run_episode


def credit_of_updates(env: Any, policy: Any, seed: int = 0) -> pd.DataFrame:
    """Return the credit and the improvement of each update but the first, with columns update, credit, improvement and effect.

    - credit: sum over instances and teachers of weight times credit, the predicted improvement;
    - improvement: decrease of the held-out loss by the update;
    - effect: loss after an update without gradient minus loss after the update. Improvement minus effect is due to the optimizer's
      momentum, which continues the updates before.

    Use pure distillation (``kd_weight=1``): hard labels improve the student too, but no teacher has credit for that. Adam adds a tenth of a
    gradient to its momentum, so its effect is about a tenth of the credit; the rest comes with the following updates.

    Args:
        env: a vector environment of one student, ``make_vec(..., credit="first_order", normalize_credit=False)``.
        policy: the policy that teaches.

    Raises:
        InputError: the environment pays no credit, normalises it, has options of the credit or ``credit_refresh``, has several students, or
            its actions select knowledge types.
    """
    selection = _checked(env)
    rows: list[list[float]] = []
    before: list[tuple[float, float]] = []

    def listen(step: Step) -> None:
        run, student, update = selection.distillation, selection.distillation.student, step.batch.update

        def loss(parameters: list[Tensor], update: npt.NDArray[np.int64]) -> float:
            return float(selection.meter.held_out_loss(student, parameters, update)[0])

        if before:
            loss_before, loss_idle = before.pop()
            loss_after = loss(student.parameters, update)
            credit = float((step.weights * step.credit["credit"]).sum())
            rows.append([int(update[0]), credit, loss_before - loss_after, loss_idle - loss_after])
        if not run.done.all():
            idle = student.after([torch.zeros_like(parameter) for parameter in student.parameters], run.observe().progress)
            before.append((loss(student.parameters, update + 1), loss(idle, update + 1)))

    teach_and_listen(env, policy, seed, listen)
    return pd.DataFrame(rows, columns=["update", "credit", "improvement", "effect"])


def credit_of_teachers(env: Any, policy: Any, seed: int = 0, every: int = 50) -> pd.DataFrame:
    """Return credit and measured improvement of each teacher of each instance, with columns update, slot, teacher, credit and improvement.

    Improvement is the decrease of the held-out loss by an optimizer step on this instance and this teacher alone, as
    :func:`kd_env.envs.credit.counterfactual` measures it. It costs B x K steps, so it is measured only every some updates.

    Args:
        env: as in :func:`credit_of_updates`, with ``knowledge="response"``.
        policy: the policy that teaches; it decides which states the student passes through.
        every: number of updates between two measurements.

    Raises:
        InputError: as in :func:`credit_of_updates`, or the setting has more than one knowledge type, ``every`` is below 1, or there
            are fewer updates than that.
    """
    if every < 1:
        raise InputError(f"credit_of_teachers: every={every}; measure every 1 or more updates")
    selection = _checked(env)
    names = list(selection.distillation.loss.terms)
    if len(names) > 1:
        raise InputError(f"credit_of_teachers: the setting has the knowledge types {', '.join(names)}; measure one at a time")
    tables: list[pd.DataFrame] = []

    def listen(step: Step) -> None:
        run = selection.distillation
        if (int(step.batch.update[0]) + 1) % every or run.done.all():
            return
        assert selection.credit_function is not None
        predicted = selection.credit_function(run, selection.meter, names, None)[names[0]].double().cpu().numpy()  # [B, K]
        measured = counterfactual(run, selection.meter, names)[names[0]].double().cpu().numpy()  # [B, K]
        slot, teacher = np.indices(predicted.shape).reshape(2, -1)
        columns = {"update": int(run.update[0]), "slot": slot, "teacher": teacher, "credit": predicted.ravel()}
        tables.append(pd.DataFrame({**columns, "improvement": measured.ravel()}))

    teach_and_listen(env, policy, seed, listen)
    if not tables:
        raise InputError(f"credit_of_teachers: every={every} is not below the number of updates; measure more often")
    return pd.concat(tables, ignore_index=True)


def correlation(table: pd.DataFrame, x: str, y: str) -> pd.DataFrame:
    """Return how well a column predicts another, in a table of one row with the columns pearson, spearman, same_sign and rows.

    Args:
        x: column with the prediction.
        y: column with the measurement. ``same_sign`` is the share of rows in which both have the same sign.
    """
    first, second = table[x].to_numpy(dtype=np.float64), table[y].to_numpy(dtype=np.float64)
    row = {
        "pearson": float(np.corrcoef(first, second)[0, 1]),
        "spearman": float(np.corrcoef(stats.rankdata(first), stats.rankdata(second))[0, 1]),
        "same_sign": float((np.sign(first) == np.sign(second)).mean()),
        "rows": len(table),
    }
    return pd.DataFrame([row])


def binned(table: pd.DataFrame, x: str, y: str, bins: int = 10) -> pd.DataFrame:
    """Return medians of two columns over equally large parts of the rows, sorted by ``x``, with columns bin, x, y and rows.

    They are medians because a few updates at the start of Adam have credit that is hundreds of times larger than all others.

    Raises:
        InputError: there are fewer rows than bins.
    """
    if len(table) < bins:
        raise InputError(f"binned: {len(table)} rows cannot fill {bins} bins; give fewer bins")
    number = (table[x].rank(method="first").to_numpy() - 1) * bins // len(table)
    parts = table.groupby(number.astype(int))
    return pd.DataFrame({x: parts[x].median(), y: parts[y].median(), "rows": parts.size()}).rename_axis("bin").reset_index()


def _checked(env: Any) -> Selection:
    selection: Selection = env.unwrapped.selection
    reward = selection.settings.reward
    if reward.credit == "shared" or reward.normalize_credit or selection.num_students > 1:
        raise InputError(
            f"credit={reward.credit!r}, normalize_credit={reward.normalize_credit}, num_students={selection.num_students}: credit is "
            'compared for one student; make the environment with credit="first_order" and normalize_credit=False'
        )
    if "(" in reward.credit or reward.credit_refresh > 1:
        raise InputError(
            f"credit={reward.credit!r}, credit_refresh={reward.credit_refresh}: credit is compared with the held-out loss of the same "
            "examples after each update; leave out the options of the credit, and credit_refresh"
        )
    if selection.action_kind.decides_knowledge:
        raise InputError(
            f"action={selection.settings.interface.action!r}: credit is compared for actions that set the weights of teachers alone; "
            "use kd_env/TeacherSelection-v0"
        )
    return selection


def teach_and_listen(env: Any, policy: Any, seed: int, listen: Callable[[Step], None]) -> None:
    """Teach a student, and call ``listen`` after each update."""
    selection: Selection = env.unwrapped.selection
    selection.listeners.append(listen)
    try:
        run_episode(env, policy, seed)
    finally:
        selection.listeners.remove(listen)
