"""Race candidates for the best student. In: a task, its teachers, a plan. Out: the student that won, and all that was compared.

At each rung every candidate that is left is taught further and judged on held-out labels; the best go on. The student without a teacher
stays until one candidate is left, since students that teachers teach often lead at first and are caught up with. The last choice is the
simplest candidate within one standard error of the best. The test split is not here.
"""

from __future__ import annotations

import gc
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from kd_env.benchmark.race.candidates import NO_TEACHER, Candidate, first_candidates, more_candidates, reads_reward_labels
from kd_env.benchmark.race.plan import Plan, Rung
from kd_env.benchmark.race.racer import Course, Racer
from kd_env.benchmark.race.score import Predictions, judging_splits, order, scores, simplest_of_the_best, student_scores
from kd_env.benchmark.race.state import Entry, RaceState
from kd_env.distillation import Distillation
from kd_env.errors import InputError

MOST_ALIVE = 1 << 30
"""Bytes of students, with their optimizers, that stay in memory between two rungs; the state of larger ones is read from its file."""
BYTES_PER_PARAMETER = 16
"""A weight, its gradient and two moments in float32."""


class Audience(Protocol):
    """Who is told how a race goes."""

    def race_stands(self, line: str) -> None:
        """Say how it stands at the end of a rung."""

    def advance_race(self, updates: int, latest: str) -> None:
        """Add ``updates`` that were taught, and say to whom."""


@dataclass(frozen=True)
class Standing:
    """A candidate at the end of a rung: its score, and its predictions."""

    candidate: Candidate
    rung: int
    score: float
    predictions: Predictions


@dataclass(frozen=True)
class Result:
    """The end of a race.

    Attributes:
        plan: the rungs.
        standings: all candidates at the end of each rung that they took part in, the best first; without those that diverged.
        diverged: candidates all of whose students diverged.
        kept: the candidate that is kept.
        seed: the seed of its best student.
        student: that student.
        seconds: processor time of the race.
    """

    plan: Plan
    standings: tuple[tuple[Standing, ...], ...]
    diverged: tuple[Candidate, ...]
    kept: Candidate
    seed: int
    student: Distillation
    seconds: float

    def last(self, candidate: Candidate) -> Standing:
        """Return the last standing of a candidate."""
        return next(one for rung in reversed(self.standings) for one in rung if one.candidate == candidate)


class Race:
    """A race that is under way."""

    def __init__(self, course: Course, plan: Plan, state: RaceState, audience: Audience, together: bool, seed: int = 0) -> None:
        """Prepare the race, or go on with the one in ``state``."""
        self.course, self.plan, self.state, self.audience, self.together, self.seed = course, plan, state, audience, together, seed
        self._alive: dict[int, Racer] = {}  # by the number of their entry
        self._standings: list[tuple[Standing, ...]] = []
        self._diverged: list[Candidate] = []

    def run(self) -> Result:
        """Run the race to its end.

        Raises:
            InputError: a candidate cannot be taught, or all of them diverge.
        """
        field = self._first_rung()
        for number, rung in enumerate(self.plan.rungs[1:], start=1):
            self._leave_out(field := self._next(field, rung))
            field = self._taught(field, number)
            self._rank(field, number)
        kept = field[0]
        entry, student, seed = self._best_student(kept)
        seconds = sum(entry.seconds for entry in self.state.entries)
        return Result(self.plan, tuple(self._standings), tuple(self._diverged), kept, seed, self._racer(entry).student(student), seconds)

    def _first_rung(self) -> list[Candidate]:
        first = first_candidates(self.course.task, self.course.settings)
        field = self._taught(first, 0)
        uniform = [candidate for candidate in field if candidate.policy != NO_TEACHER]
        if not uniform:
            raise InputError(
                f"task {self.course.task.name!r}: all students that teachers teach diverged; use a lower lr (--set optimizer=...)"
            )
        leader = uniform[order(self.course.task, self._predictions(uniform, 0))[0]]
        teachers, settings = len(self.course.pool.teachers), self.course.settings
        field += self._taught(more_candidates(self.course.task, teachers, settings, leader, len(first)), 0)
        self._rank(field, 0)
        return field

    def _taught(self, candidates: Sequence[Candidate], number: int) -> list[Candidate]:
        """Teach candidates to the end of a rung; return those that have a student that has not diverged."""
        rung = self.plan.rungs[number]
        for candidate in candidates:
            for seeds in self._groups(candidate, rung):
                entry = self.state.entry(candidate, seeds)
                if str(number) not in entry.marks:
                    self._teach(entry, number)
        alive = [candidate for candidate in candidates if self.state.predictions(candidate, number) is not None]
        self._diverged += [candidate for candidate in candidates if candidate not in alive]
        if not alive:
            raise InputError(
                f"task {self.course.task.name!r}: all students diverged; use a lower lr (--set optimizer=...) and another --out"
            )
        return alive

    def _groups(self, candidate: Candidate, rung: Rung) -> list[list[int]]:
        """Return the seeds of a candidate's entries: those that it has, and those that the rung adds."""
        groups = [entry.seeds for entry in self.state.of(candidate)]
        known = {seed for group in groups for seed in group}
        added = [seed for seed in range(self.seed, self.seed + rung.seeds) if seed not in known]
        return groups + ([added] if added and self.together else [[seed] for seed in added])

    def _teach(self, entry: Entry, number: int) -> None:
        started, racer, rung = time.process_time(), self._racer(entry), self.plan.rungs[number]
        label = f"rung {number + 1} of {len(self.plan.rungs)}: {entry.candidate.name}"
        racer.teach(rung.until, lambda _: self.audience.advance_race(len(entry.seeds), label))
        splits = judging_splits(self.course.task, reads_reward_labels(entry.candidate))
        entry.marks[str(number)] = {split: racer.classes(split).tolist() for split in splits}
        entry.update, entry.lost = rung.until, racer.lost.tolist()
        entry.seconds += time.process_time() - started
        racer.save(self.state.place(entry))
        self.state.write()
        if not self._fits_in_memory(racer):
            self._alive.clear()
            gc.collect()  # students are in reference cycles with their optimizers and environments

    def _racer(self, entry: Entry) -> Racer:
        number = self.state.entries.index(entry)
        if number not in self._alive:
            racer = Racer(self.course, entry.candidate, entry.seeds)
            if entry.update:
                racer.load(self.state.place(entry), entry.lost)
            self._alive[number] = racer
        return self._alive[number]

    def _fits_in_memory(self, racer: Racer) -> bool:
        return BYTES_PER_PARAMETER * racer.num_parameters * len(self._alive) < MOST_ALIVE

    def _predictions(self, candidates: Sequence[Candidate], number: int) -> list[Predictions]:
        return [found for candidate in candidates if (found := self.state.predictions(candidate, number)) is not None]

    def _rank(self, field: list[Candidate], number: int) -> None:
        """Sort ``field`` in place, the best first, and say how it stands."""
        predictions = self._predictions(field, number)
        values, best_first = scores(self.course.task, predictions), order(self.course.task, predictions)
        self._standings.append(tuple(Standing(field[place], number, values[place], predictions[place]) for place in best_first))
        field[:] = [field[place] for place in best_first]
        rung, ranking = self.plan.rungs[number], "; ".join(f"{one.candidate.name} {one.score:.3f}" for one in self._standings[-1])
        self.audience.race_stands(f"rung {number + 1} of {len(self.plan.rungs)}, {rung.until} of {self.plan.updates} updates: {ranking}")

    def _next(self, field: list[Candidate], rung: Rung) -> list[Candidate]:
        """Return the candidates of a rung, given those of the one before, the best first."""
        number = len(self._standings) - 1
        if rung.left == 1 and len(field) > 1:
            predictions = self._predictions(field, number)
            return [field[simplest_of_the_best(self.course.task, predictions, [candidate.rank for candidate in field])]]
        reference = [candidate for candidate in field if candidate.policy == NO_TEACHER and candidate not in field[: rung.left]]
        return field[: rung.left - len(reference)] + reference

    def _leave_out(self, field: Sequence[Candidate]) -> None:
        """Forget the students of candidates that are not in ``field``."""
        for number, entry in enumerate(self.state.entries):
            if entry.candidate not in field:
                self._alive.pop(number, None)
                shutil.rmtree(self.state.place(entry), ignore_errors=True)

    def _best_student(self, candidate: Candidate) -> tuple[Entry, int, int]:
        """Return the entry, the number in it, and the seed of the best student of a candidate."""
        best: tuple[float, Entry, int] | None = None
        for entry in self.state.of(candidate):
            if (predictions := entry.predictions(len(self.plan.rungs) - 1)) is None:
                continue
            students = np.flatnonzero(~np.array(entry.lost)).tolist()
            for score, student in zip(student_scores(self.course.task, predictions), students, strict=True):
                if best is None or score > best[0]:
                    best = score, entry, student
        assert best is not None
        return best[1], best[2], best[1].seeds[best[2]]
