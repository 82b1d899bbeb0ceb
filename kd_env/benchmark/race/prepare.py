"""Prepare a race. In: the arguments of the user. Out: a :class:`PreparedRace`, checked, with the teachers' outputs in a bank.

Arguments are checked before the teachers of a default pool are trained and before a bank is built, as far as possible.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from kd_env import tasks
from kd_env.bank import open_bank
from kd_env.bank.assumptions import cut_lines, teacher_lines
from kd_env.benchmark.default_student import default_student_line
from kd_env.benchmark.progress import Progress
from kd_env.benchmark.race.candidate_run import RaceSetup
from kd_env.benchmark.race.candidates import Candidate, candidates_and_cost, first_candidates, more_candidates, resolve
from kd_env.benchmark.race.defaults import Budget, budget_in_updates, learns_in_population, race_settings, read_budget
from kd_env.benchmark.race.plan import make_plan
from kd_env.benchmark.race.race import Race
from kd_env.benchmark.race.results import RaceResult
from kd_env.benchmark.race.state import RaceState
from kd_env.benchmark.student_checkpoint import require_saveable
from kd_env.envs.settings import settings as make_settings
from kd_env.knowledge.terms import extra_outputs, parse_terms
from kd_env.models.networks import build, reader
from kd_env.student.optimizer import OptimizerOptions
from kd_env.tasks import Task
from kd_env.teachers import Pool, Teacher, load_pool
from kd_env.teachers.file_hashes import content_hash
from kd_env.teachers.own import as_pool

NUM_CHECKED_TEACHERS = 2
"""Number of teachers that is assumed to check the candidates before the pool is loaded: with two or more, all policies take part."""


@dataclass(frozen=True)
class PreparedRace:
    """A race that is ready to run.

    Attributes:
        task: the task with its test split.
        setup: what all candidates have in common.
        budget: the budget.
        seed: seed of the first student of each candidate.
        network: a student before it is taught.
        command: the command line, for the report.
    """

    task: Task
    setup: RaceSetup
    budget: Budget
    seed: int
    network: nn.Module
    command: str = ""

    @property
    def student(self) -> str:
        """Name of the student."""
        return str(self.setup.settings["student"])

    @property
    def identity(self) -> dict[str, Any]:
        """Everything that decides the result, and the test split on which it is reported."""
        return {
            "task": self.setup.task.fingerprint,
            "test split": self.task.test_fingerprint,
            "metric": self.task.metric_key,
            "teachers": self.setup.bank.fingerprint,
            "settings": dict(self.setup.settings),
            "student files": content_hash(self.student) or content_hash(self.student.rpartition("(")[0]),
            "budget": str(self.budget),
            "seed": self.seed,
        }

    @property
    def key(self) -> str:
        """Short hash of :attr:`identity`."""
        return hashlib.sha256(json.dumps(self.identity, sort_keys=True).encode()).hexdigest()[:16]

    def run(self, folder: Path, progress: Progress) -> RaceResult:
        """Run the race, or continue it from the state in ``folder``.

        Raises:
            InputError: ``folder`` contains another race, or all students diverge.
        """
        state, setup = RaceState(folder, self.identity), self.setup
        if state.budget is None:
            state.budget = budget_in_updates(self.budget, setup)
        candidates, extra_cost = candidates_and_cost(setup.task, len(setup.pool.teachers), setup.settings)
        as_population = learns_in_population(self.network)
        warmup = OptimizerOptions.of(str(setup.settings["optimizer"])).warmup
        plan = make_plan(candidates, int(setup.settings["updates"]), state.budget, as_population, extra_cost, warmup)
        settings = {**setup.settings, "updates": plan.updates, "validation_every": plan.updates}
        progress.say(
            f"race of {candidates} candidates: the best student has {plan.updates:,} updates, all students together {plan.total_updates:,}"
        )
        progress.start_race(plan.total_updates, state.total_updates)
        return Race(replace(setup, settings=settings), plan, state, progress, as_population, self.seed).run()


def prepare_race(
    task: str | Task,
    teachers: str | Pool | Sequence[str | Teacher | Callable[..., Any]] | None,
    student: str | None,
    budget: str | int | None,
    seed: int,
    bank: str | Path | None,
    settings: Mapping[str, Any],
    progress: Progress,
    command: str = "",
    to_save: bool = True,
) -> PreparedRace:
    """Check the arguments, load the teachers, and build the bank.

    Args:
        task: a task, or its name.
        teachers: a pool, its name, or a list of teachers and of names. Default: the task's.
        student: architecture, or checkpoint to start from. Default: the task's.
        budget: number of updates or a time, see :func:`~kd_env.benchmark.race.defaults.read_budget`.
        seed: seed of the first student of each candidate.
        bank: folder of a bank that was built before.
        settings: the user's settings.
        progress: shows the progress.
        command: the command line, for the report.
        to_save: whether the student will be saved, so that it must be a Transformers model.

    Raises:
        InputError: an argument cannot be used.
    """
    task = tasks.load(task) if isinstance(task, str) else task
    user_settings = {name: value for name, value in settings.items() if value is not None}
    make_settings(task, **user_settings)  # raises the errors of their values
    complete_settings = race_settings(task, {**user_settings, "student": student})
    name, checked_budget = str(complete_settings["student"]), read_budget(budget)
    network = build(name, task, 0)
    if to_save:
        require_saveable(network, name, task)
    reader(name, task)  # raises the errors of the tokenizer
    for candidate in _candidates(task, user_settings):
        resolve(candidate, task, complete_settings)
    development = task.development()
    pool = _pool(task.defaults.pool if teachers is None else teachers, development, progress)
    keep = extra_outputs(parse_terms(str(complete_settings.get("knowledge", "response"))))
    teacher_outputs = open_bank(development, pool, None if bank is None else Path(bank), progress.bank, keep=keep)
    for line in dict.fromkeys([*teacher_lines(development, pool, teacher_outputs), *cut_lines(development, pool, name)]):
        progress.say(line)
    if student is None:
        progress.say(default_student_line(name, network, pool))
    return PreparedRace(task, RaceSetup(development, pool, teacher_outputs, complete_settings), checked_budget, seed, network, command)


def _pool(teachers: str | Pool | Sequence[Any], task: Task, progress: Progress) -> Pool:
    """Return a pool, the pool of that name, or a pool of the teachers of a list; a name in a list stands for a checkpoint or a pool."""
    if isinstance(teachers, str):
        return load_pool(teachers, task, progress.teaching)
    if isinstance(teachers, list):
        teachers = [
            teacher
            for item in teachers
            for teacher in (load_pool(item, task, progress.teaching).teachers if isinstance(item, str) else [item])
        ]
    return as_pool("own", teachers, task)


def _candidates(task: Task, settings: Mapping[str, Any]) -> list[Candidate]:
    first = first_candidates(task, settings)
    return first + more_candidates(task, NUM_CHECKED_TEACHERS, settings, first[-1], len(first))
