"""Fill in what the user of a race left open: student, optimizer, updates, budget. In: a task and settings. Out: settings and numbers."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import nn

from kd_env.benchmark.race.candidates import first_candidates
from kd_env.benchmark.race.plan import USUAL
from kd_env.benchmark.race.racer import Course, Racer
from kd_env.distillation.settings import DistillationSettings
from kd_env.errors import InputError
from kd_env.models.networks import begins_as_checkpoint
from kd_env.student.population import refuse_unbatched_layers
from kd_env.tasks import Task

PRETRAINED_OPTIMIZER = "adamw(lr=0.0003,warmup=0.05,decay=linear)"
"""Optimizer of a student that starts from a checkpoint; the defaults of tasks are meant for new weights."""
PRETRAINED_EPOCHS, FEWEST, MOST = 12, 200, 2000
"""Updates of a student that starts from a checkpoint: so many epochs, and at least and at most so many updates."""
SMALL = 200_000
"""Parameters up to which several students are taught as one population, which costs little more than one."""
UNITS = {"s": 1, "sec": 1, "m": 60, "min": 60, "h": 3600}
TIMED = 8
"""Updates by which the speed is measured for a budget in minutes."""
TEACHING = 0.7
"""Part of a budget in minutes that is spent on updates; the rest is for judging, fitting and writing."""


class Budget(NamedTuple):
    """A budget in updates or in seconds; ``None`` for both is the default."""

    updates: int | None = None
    seconds: float | None = None

    def __str__(self) -> str:
        if self.updates is not None:
            return f"{self.updates:,} updates"
        return f"{self.seconds / 60:g} minutes" if self.seconds is not None else f"{USUAL:g} runs of one student to the end"


def read_budget(text: str | int | None) -> Budget:
    """Return the budget that a text as ``2000`` (updates), ``10min`` or ``1h`` names.

    Raises:
        InputError: the text is none of these.
    """
    if text is None:
        return Budget()
    found = re.fullmatch(r"(\d{1,9}(?:\.\d+)?)\s*([a-z]*)", str(text).strip().lower())
    unit = found[2] if found else ""
    if found is None or unit not in ("", *UNITS) or float(found[1]) == 0 or (not unit and "." in found[1]):
        raise InputError(f"--budget {text!r}: expected a number of updates, as 2000, or a time, as 10min, 90s or 1h")
    return Budget(seconds=float(found[1]) * UNITS[unit]) if unit else Budget(updates=int(found[1]))


def race_settings(task: Task, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the user's settings with defaults for a race: the student, its optimizer and its updates."""
    filled = {"student": task.defaults.student, **{name: value for name, value in settings.items() if value is not None}}
    if begins_as_checkpoint(str(filled["student"])):
        epochs = math.ceil(PRETRAINED_EPOCHS * len(task.train) / int(filled.get("batch_size", DistillationSettings.batch_size)))
        defaults = {"optimizer": PRETRAINED_OPTIMIZER, "updates": min(max(epochs, FEWEST), MOST)}
    else:
        defaults = {"optimizer": task.defaults.optimizer, "updates": task.defaults.updates}
    filled = {**defaults, **filled}
    return {"validation_every": filled["updates"], **filled}


def learns_in_population(network: nn.Module) -> bool:
    """Return whether several students like ``network`` are taught as one population."""
    try:
        refuse_unbatched_layers(network)
    except InputError:
        return False
    return sum(parameter.numel() for parameter in network.parameters()) <= SMALL


def budget_in_updates(budget: Budget, course: Course) -> float:
    """Return a budget in updates of a student that is taught alone by `uniform`. A budget in seconds is converted by the measured speed."""
    if budget.updates is not None:
        return budget.updates
    if budget.seconds is None:
        return USUAL * float(course.settings["updates"])
    racer = Racer(course, first_candidates(course.task, course.settings)[-1], [0])
    racer.teach(2, lambda _: None)
    started = time.perf_counter()
    racer.teach(2 + TIMED, lambda _: None)
    return TEACHING * budget.seconds * TIMED / (time.perf_counter() - started)
