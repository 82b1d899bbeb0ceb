"""Race candidates for the best student. In: a task, its teachers, a plan. Out: the best student, and the results of all candidates.

At each rung the remaining candidates are taught further and scored on held-out labels; the best go on to the next rung. The student without
a teacher stays until the last rung but one, because students with teachers often lead early and lose the lead later. The last choice is the
simplest candidate that the best one does not clearly lead. The race has no access to the test split.
"""

from __future__ import annotations

import gc
import shutil
import time
from collections.abc import Sequence

import numpy as np

from kd_env.benchmark.progress import Progress
from kd_env.benchmark.race.candidate_run import CandidateRun, RaceSetup
from kd_env.benchmark.race.candidates import NO_TEACHER, Candidate, first_candidates, more_candidates, scored_on_validation_alone
from kd_env.benchmark.race.plan import Plan, Rung
from kd_env.benchmark.race.results import RaceResult, RungResult
from kd_env.benchmark.race.score import (
    Predictions,
    held_out_losses,
    mean_losses,
    rank,
    scores,
    scoring_splits,
    simplest_unbeaten,
    student_scores,
)
from kd_env.benchmark.race.state import Entry, RaceState
from kd_env.errors import InputError

MAX_BYTES_IN_MEMORY = 4 << 30
"""Largest size of the students, with their optimizers, that stay in memory between two rungs. Larger ones are loaded from their files."""
SECONDS_BETWEEN_SAVES = 60.0
"""Students are saved when this much time of teaching would be lost if the race was killed. Most candidates leave the race before."""
BYTES_PER_PARAMETER = 16
"""A weight, its gradient and two moments in float32."""


class Race:
    """A race in progress."""

    def __init__(self, setup: RaceSetup, plan: Plan, state: RaceState, progress: Progress, as_population: bool, seed: int = 0) -> None:
        """Prepare a race, or continue the one in ``state``.

        Args:
            setup: what all candidates have in common.
            plan: the rungs.
            state: the saved state of the race.
            progress: shows the progress.
            as_population: whether the seeds of a candidate are taught as one population.
            seed: seed of the first student of each candidate.
        """
        self.setup, self.plan, self.state, self.progress, self.as_population, self.seed = setup, plan, state, progress, as_population, seed
        self._runs: dict[int, CandidateRun] = {}  # runs in memory, by the index of their entry
        self._rungs: list[tuple[RungResult, ...]] = []
        self._diverged: list[Candidate] = []

    def run(self) -> RaceResult:
        """Run the race to its end and return its result.

        Raises:
            InputError: a setting of a candidate cannot be used, or all students diverge.
        """
        candidates = self._first_rung()
        for index, rung in enumerate(self.plan.rungs[1:], start=1):
            candidates = self._select(candidates, rung)
            self._delete_others(candidates)
            remaining = self._teach_all(candidates, index)
            if not remaining:
                raise self._all_diverged("all students diverged")
            candidates = self._rank(remaining, index)
        kept = candidates[0]
        entry, student = self._best_student(kept)
        seconds = sum(entry.seconds for entry in self.state.entries)
        distillation = self._run_of(entry).student(student)
        rungs, diverged, updates = tuple(self._rungs), tuple(self._diverged), self.state.total_updates
        return RaceResult(self.plan, rungs, diverged, kept, entry.seeds[student], distillation, updates, seconds)

    def _first_rung(self) -> list[Candidate]:
        """Teach all candidates to the first rung; return those that have not diverged, the best first."""
        task, settings = self.setup.task, self.setup.settings
        first = first_candidates(task, settings)
        candidates = self._teach_all(first, 0)
        uniform = [candidate for candidate in candidates if candidate.policy != NO_TEACHER]
        if not uniform:
            raise self._all_diverged("all students with teachers diverged" if candidates else "all students diverged")
        best_uniform = uniform[rank(task, self._predictions(uniform, 0), self._losses(uniform, 0))[0]]
        more = more_candidates(task, len(self.setup.pool.teachers), settings, best_uniform, len(first))
        return self._rank(candidates + self._teach_all(more, 0), 0)

    def _teach_all(self, candidates: Sequence[Candidate], index: int) -> list[Candidate]:
        """Teach candidates to the end of a rung; return those with at least one student that has not diverged, which may be none."""
        for candidate in candidates:
            for seeds in self._seed_groups(candidate, self.plan.rungs[index]):
                entry = self.state.entry(candidate, seeds)
                if str(index) not in entry.classes:
                    self._teach(entry, index)
        remaining = [candidate for candidate in candidates if self.state.predictions(candidate, index) is not None]
        self._diverged += [candidate for candidate in candidates if candidate not in remaining]
        return remaining

    def _all_diverged(self, what: str) -> InputError:
        return InputError(f"task {self.setup.task.name!r}: {what}; use a lower lr (--set optimizer=...) and another --out")

    def _seed_groups(self, candidate: Candidate, rung: Rung) -> list[list[int]]:
        """Return the seeds of each entry of a candidate: of its entries up to this rung, and of those that the rung adds.

        A race that continues goes through its rungs again, and then has entries that later rungs have added.
        """
        end = self.seed + rung.seeds
        groups = [entry.seeds for entry in self.state.entries_of(candidate) if entry.seeds[0] < end]
        known = {seed for group in groups for seed in group}
        added = [seed for seed in range(self.seed, end) if seed not in known]
        return groups + ([added] if added and self.as_population else [[seed] for seed in added])

    def _teach(self, entry: Entry, index: int) -> None:
        """Teach the students of an entry to the end of a rung, and store their predictions."""
        started, run, rung, task = time.process_time(), self._run_of(entry), self.plan.rungs[index], self.setup.task
        label = f"rung {index + 1} of {len(self.plan.rungs)}: {entry.candidate.name}"

        def advance(_: int) -> None:
            self.progress.advance_race(len(entry.seeds), label)
            if run.unsaved_seconds >= SECONDS_BETWEEN_SAVES:
                self._save(entry, run)

        run.teach(rung.updates, advance)
        entry.update, entry.diverged_at[str(index)] = rung.updates, run.diverged.tolist()
        splits = scoring_splits(task, scored_on_validation_alone(entry.candidate, task, self.setup.settings))
        logits = {split: run.logits(split) for split in splits}
        entry.classes[str(index)] = {split: values.argmax(2).tolist() for split, values in logits.items()}
        losses = {split: np.full(len(entry.seeds), np.inf) for split in splits}
        for split, values in logits.items():
            losses[split][~run.diverged] = held_out_losses(task, split, values[~run.diverged])
        entry.losses[str(index)] = {split: values.tolist() for split, values in losses.items()}
        entry.seconds += time.process_time() - started
        self.state.write()
        if BYTES_PER_PARAMETER * run.num_parameters * len(self._runs) >= MAX_BYTES_IN_MEMORY:
            self._free_memory()

    def _save(self, entry: Entry, run: CandidateRun) -> None:
        """Save the students of an entry, then delete those that were saved before."""
        before = self.state.students_of(entry)
        entry.saved, entry.saved_diverged = run.update, run.diverged.tolist()
        run.save(self.state.students_of(entry))
        self.state.write()
        if before != self.state.students_of(entry):
            shutil.rmtree(before, ignore_errors=True)

    def _free_memory(self) -> None:
        """Save all runs in memory that have changed, and delete them from memory."""
        for number, run in self._runs.items():
            if run.unsaved_seconds:
                self._save(self.state.entries[number], run)
        self._runs.clear()
        gc.collect()  # students are in reference cycles with their optimizers and environments

    def _run_of(self, entry: Entry) -> CandidateRun:
        """Return the run of an entry, with students as they were at the end of its last rung or later.

        It is taken from memory, loaded from its files, or started again. Then it is taught up to the updates that the entry has reached.
        """
        number = self.state.entries.index(entry)
        if number not in self._runs:
            run = CandidateRun(self.setup, entry.candidate, entry.seeds)
            if entry.saved:
                run.load(self.state.students_of(entry), entry.saved_diverged)
            run.teach(entry.update, lambda _: None)
            self._runs[number] = run
        return self._runs[number]

    def _losses(self, candidates: Sequence[Candidate], index: int) -> list[float]:
        losses = [self.state.losses(candidate, index) for candidate in candidates]
        return mean_losses(self.setup.task, [loss for loss in losses if loss is not None])

    def _predictions(self, candidates: Sequence[Candidate], index: int) -> list[Predictions]:
        predictions = [self.state.predictions(candidate, index) for candidate in candidates]
        return [prediction for prediction in predictions if prediction is not None]

    def _rank(self, candidates: Sequence[Candidate], index: int) -> list[Candidate]:
        """Store and print the results of a rung; return the candidates, the best first."""
        predictions, losses = self._predictions(candidates, index), self._losses(candidates, index)
        candidate_scores = scores(self.setup.task, predictions)
        results = [
            RungResult(candidates[number], index, candidate_scores[number], losses[number], predictions[number])
            for number in rank(self.setup.task, predictions, losses)
        ]
        self._rungs.append(tuple(results))
        ranking = "; ".join(f"{result.candidate.name} {result.score:.3f}" for result in results)
        updates = self.plan.rungs[index].updates
        self.progress.end_rung(f"rung {index + 1} of {len(self.plan.rungs)}, {updates} of {self.plan.updates} updates: {ranking}")
        return [result.candidate for result in results]

    def _select(self, candidates: list[Candidate], rung: Rung) -> list[Candidate]:
        """Return the candidates that go on to ``rung``, given those of the rung before, the best first."""
        if rung.candidates == 1 and len(candidates) > 1:
            predictions = self._predictions(candidates, len(self._rungs) - 1)
            return [candidates[simplest_unbeaten(self.setup.task, predictions, [candidate.rank for candidate in candidates])]]
        selected, others = candidates[: rung.candidates], candidates[rung.candidates :]
        no_teacher = [candidate for candidate in others if candidate.policy == NO_TEACHER]
        return selected[: rung.candidates - len(no_teacher)] + no_teacher

    def _delete_others(self, candidates: Sequence[Candidate]) -> None:
        """Delete the students of all candidates that are not in ``candidates``."""
        for number, entry in enumerate(self.state.entries):
            if entry.candidate not in candidates:
                self._runs.pop(number, None)
                shutil.rmtree(self.state.folder_of(entry), ignore_errors=True)

    def _best_student(self, candidate: Candidate) -> tuple[Entry, int]:
        """Return the entry of the best student of a candidate, and its index there."""
        best_score, best = -np.inf, None
        for entry in self.state.entries_of(candidate):
            predictions = entry.predictions(len(self.plan.rungs) - 1)
            if predictions is None:
                continue
            students = np.flatnonzero(~np.array(entry.diverged)).tolist()
            for score, student in zip(student_scores(self.setup.task, predictions), students, strict=True):
                if best is None or score > best_score:
                    best_score, best = score, (entry, student)
        assert best is not None
        return best
