"""Defaults of a race: student, optimizer, updates and budget. In: a task and the user's settings. Out: complete settings, a budget."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import nn

from kd_env.benchmark.race.candidate_run import CandidateRun, RaceSetup
from kd_env.benchmark.race.candidates import first_candidates
from kd_env.benchmark.race.plan import DEFAULT_BUDGET
from kd_env.distillation.settings import DistillationSettings
from kd_env.errors import InputError
from kd_env.models.networks import begins_as_checkpoint
from kd_env.student.population import refuse_unbatched_layers
from kd_env.tasks import Task

PRETRAINED_OPTIMIZER = "adamw(lr=0.0003,warmup=0.05,decay=linear)"
"""Optimizer of a student that starts from a checkpoint; the defaults of tasks are meant for new weights."""
PRETRAINED_EPOCHS = 12
"""Epochs of a student that starts from a checkpoint."""
MIN_PRETRAINED_UPDATES, MAX_PRETRAINED_UPDATES = 200, 2000
"""Bounds of its updates."""
MAX_POPULATION_PARAMETERS = 200_000
"""Largest number of parameters of students that are taught as one population. Larger students gain little from it."""
SECONDS_PER_UNIT = {"s": 1, "sec": 1, "m": 60, "min": 60, "h": 3600}
TIMED_UPDATES = 8
"""Number of updates that are timed to convert a budget in seconds into updates."""
UPDATE_SHARE = 0.7
"""Share of a budget in seconds that is spent on updates; the rest is for scoring, fitting and saving."""


class Budget(NamedTuple):
    """A budget in updates or in seconds. If both are ``None``, it is :data:`~kd_env.benchmark.race.plan.DEFAULT_BUDGET`."""

    updates: int | None = None
    seconds: float | None = None

    def __str__(self) -> str:
        if self.updates is not None:
            return f"{self.updates:,} updates"
        if self.seconds is not None:
            return f"{self.seconds / 60:g} minute{'s' * (self.seconds != 60)}"
        return f"{DEFAULT_BUDGET:g} runs of one student to the end"


def read_budget(text: str | int | None) -> Budget:
    """Return the budget that a text such as ``2000`` (updates), ``10min`` or ``1h`` names.

    Raises:
        InputError: the text is none of these.
    """
    if text is None:
        return Budget()
    match = re.fullmatch(r"(\d{1,9}(?:\.\d+)?)\s*([a-z]*)", str(text).strip().lower())
    unit = match[2] if match else ""
    if match is None or unit not in ("", *SECONDS_PER_UNIT) or float(match[1]) == 0 or (not unit and "." in match[1]):
        raise InputError(f"--budget {text!r}: expected a number of updates, as 2000, or a time, as 10min, 90s or 1h")
    return Budget(seconds=float(match[1]) * SECONDS_PER_UNIT[unit]) if unit else Budget(updates=int(match[1]))


def race_settings(task: Task, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the user's settings with defaults for the student, its optimizer, its updates and ``validation_every``."""
    filled = {"student": task.defaults.student, **{name: value for name, value in settings.items() if value is not None}}
    if begins_as_checkpoint(str(filled["student"])):
        updates = math.ceil(PRETRAINED_EPOCHS * len(task.train) / int(filled.get("batch_size", DistillationSettings.batch_size)))
        defaults = {"optimizer": PRETRAINED_OPTIMIZER, "updates": min(max(updates, MIN_PRETRAINED_UPDATES), MAX_PRETRAINED_UPDATES)}
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
    return sum(parameter.numel() for parameter in network.parameters()) <= MAX_POPULATION_PARAMETERS


def budget_in_updates(budget: Budget, setup: RaceSetup) -> float:
    """Return a budget in updates of a student with `uniform`. A time is converted by the measured speed of such a student."""
    if budget.updates is not None:
        return budget.updates
    if budget.seconds is None:
        return DEFAULT_BUDGET * float(setup.settings["updates"])
    run = CandidateRun(setup, first_candidates(setup.task, setup.settings)[-1], [0])
    run.teach(2, lambda _: None)
    started = time.perf_counter()
    run.teach(2 + TIMED_UPDATES, lambda _: None)
    return UPDATE_SHARE * budget.seconds * TIMED_UPDATES / (time.perf_counter() - started)
