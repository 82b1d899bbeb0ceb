"""Set up a race. In: what a user asks for. Out: a :class:`RaceSetUp`, with everything checked and the teachers' outputs in a bank.

All that can be refused is refused before teachers of a default pool are trained and before a bank is built.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from kd_env import tasks
from kd_env.bank import open_bank
from kd_env.bank.assumptions import cut_lines, teacher_lines
from kd_env.benchmark.progress import Progress
from kd_env.benchmark.race.candidates import Candidate, first_candidates, keywords, more_candidates, num_candidates
from kd_env.benchmark.race.defaults import Budget, budget_in_updates, learns_in_population, race_settings, read_budget
from kd_env.benchmark.race.plan import plan
from kd_env.benchmark.race.race import Race, Result
from kd_env.benchmark.race.racer import Course
from kd_env.benchmark.race.state import RaceState
from kd_env.errors import InputError
from kd_env.knowledge.terms import extra_outputs, parse_terms
from kd_env.models.encoder import Encoder
from kd_env.models.networks import build, reader
from kd_env.tasks import Task
from kd_env.teachers import NetworkTeacher, Pool, Teacher, load_pool
from kd_env.teachers.checkpoint import CheckpointTeacher
from kd_env.teachers.file_hashes import content_hash
from kd_env.teachers.own import as_pool

MOST_TEACHERS = 2
"""Teachers for which candidates are checked before the pool is loaded: from two on all policies take part."""


@dataclass(frozen=True)
class RaceSetUp:
    """A race before its start.

    Attributes:
        task: the task with its test split.
        course: what the candidates have in common.
        budget: the budget.
        seed: seed of the first student of each candidate.
        network: a student before it is taught.
        command: command line, for the page.
    """

    task: Task
    course: Course
    budget: Budget
    seed: int
    network: nn.Module
    command: str = ""

    @property
    def student(self) -> str:
        """Name of the student."""
        return str(self.course.settings["student"])

    @property
    def identity(self) -> dict[str, Any]:
        """All that decides the result."""
        return {
            "task": self.course.task.fingerprint,
            "teachers": self.course.bank.fingerprint,
            "settings": dict(self.course.settings),
            "student files": content_hash(self.student) or content_hash(self.student.rpartition("(")[0]),
            "budget": str(self.budget),
            "seed": self.seed,
        }

    @property
    def key(self) -> str:
        """Short hash of :attr:`identity`."""
        return hashlib.sha256(json.dumps(self.identity, sort_keys=True).encode()).hexdigest()[:16]

    def run(self, folder: Path, progress: Progress) -> Result:
        """Run the race; its state is kept in ``folder``, and a race that was stopped there goes on.

        Raises:
            InputError: ``folder`` holds another race, or all students diverge.
        """
        state, course = RaceState(folder, self.identity), self.course
        if state.budget is None:
            state.budget = budget_in_updates(self.budget, course)
        candidates = num_candidates(course.task, len(course.pool.teachers), course.settings)
        together = learns_in_population(self.network)
        race = plan(candidates, int(course.settings["updates"]), state.budget, together)
        settings = {**course.settings, "updates": race.updates, "validation_every": race.updates}
        progress.say(
            f"race of {candidates} candidates; the student that is kept has {race.updates:,} updates, all together {race.taught:,}"
        )
        progress.start_race(race.taught, state.taught)
        return Race(Course(course.task, course.pool, course.bank, settings), race, state, progress, together, self.seed).run()


def set_up(
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
) -> RaceSetUp:
    """Check what the user asks for, load the teachers, and build the bank.

    Args:
        task: a task, or its name.
        teachers: a pool, its name, or a list of teachers and of names. Default: the task's.
        student: architecture, or checkpoint to start from. Default: the task's.
        budget: updates or a time, see :func:`~kd_env.benchmark.race.defaults.read_budget`.
        seed: seed of the first student of each candidate.
        bank: folder of a bank that was built before.
        settings: the user's settings.
        progress: where to show the progress.
        command: command line.
        to_save: whether the student must be a Transformers model.

    Raises:
        InputError: something cannot be used.
    """
    task = tasks.load(task) if isinstance(task, str) else task
    given = {name: value for name, value in settings.items() if value is not None}
    filled = race_settings(task, {**given, "student": student})
    name, limit = str(filled["student"]), read_budget(budget)
    network = build(name, task, 0)
    if to_save:
        require_saveable(network, name, task)
    reader(name, task)  # raises errors of the tokenizer
    for candidate in _candidates(task, given):
        keywords(candidate, task, filled)
    development = task.development()
    pool = _pool(task.defaults.pool if teachers is None else teachers, development)
    keep = extra_outputs(parse_terms(str(filled.get("knowledge", "response"))))
    opened = open_bank(development, pool, None if bank is None else Path(bank), progress.bank, keep=keep)
    for line in dict.fromkeys([*teacher_lines(development, pool, opened), *cut_lines(development, pool, name)]):
        progress.say(line)
    if student is None:
        progress.say(f"no student was named: it is {name} with {_size(network):,} parameters; {_sizes(pool)}; --student names another")
    return RaceSetUp(task, Course(development, pool, opened, filled), limit, seed, network, command)


def require_saveable(network: nn.Module, student: str, task: Task) -> None:
    """Check that a student can be saved as a Transformers checkpoint.

    Raises:
        InputError: it cannot.
    """
    if not isinstance(network, Encoder):
        alternative = "tiny-vit" if task.kind == "image" else "tiny-bert"
        raise InputError(
            f"student {student!r} is not a Transformers model and cannot be saved as one; use --student {alternative}, or a checkpoint"
        )


def _pool(teachers: str | Pool | Sequence[Any], task: Task) -> Pool:
    """Return the pool that a text names, a pool, or a pool of a list, in which texts name checkpoints or pools."""
    if isinstance(teachers, str):
        return load_pool(teachers, task)
    if isinstance(teachers, list):
        teachers = [one for item in teachers for one in (load_pool(item, task).teachers if isinstance(item, str) else [item])]
    return as_pool("own", teachers, task)


def _candidates(task: Task, settings: Mapping[str, Any]) -> list[Candidate]:
    first = first_candidates(task, settings)
    return first + more_candidates(task, MOST_TEACHERS, settings, first[-1], len(first))


def _sizes(pool: Pool) -> str:
    """Return the sizes of the teachers that are known."""
    known = [teacher for teacher in pool.teachers if isinstance(teacher, NetworkTeacher | CheckpointTeacher)]
    sizes = [f"teacher {teacher.name} has {_size(teacher.network):,}" for teacher in known]
    return ", ".join(sizes) or "the sizes of the teachers are not known"


def _size(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())
