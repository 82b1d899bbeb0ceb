"""Hold the results of a race."""

from __future__ import annotations

from dataclasses import dataclass

from kd_env.benchmark.race.candidates import Candidate
from kd_env.benchmark.race.plan import Plan
from kd_env.benchmark.race.score import Predictions
from kd_env.distillation import Distillation


@dataclass(frozen=True)
class RungResult:
    """The score and the predictions of a candidate at the end of a rung.

    Attributes:
        candidate: the candidate.
        rung: index of the rung in the plan.
        score: mean score of the candidate's students, see :func:`~kd_env.benchmark.race.score.scores`.
        loss: their mean loss, see :func:`~kd_env.benchmark.race.score.held_out_losses`.
        predictions: predicted classes of its students.
    """

    candidate: Candidate
    rung: int
    score: float
    loss: float
    predictions: Predictions


@dataclass(frozen=True)
class RaceResult:
    """The result of a race.

    Attributes:
        plan: the plan of the race.
        rungs: the results of each rung, the best first, without candidates that have diverged.
        diverged: candidates all of whose students have diverged.
        kept: the candidate that is kept.
        seed: the seed of its best student.
        student: that student.
        updates: sum of the updates of all students; one that has diverged counts to the end of its rung.
        seconds: processor time of the race.
    """

    plan: Plan
    rungs: tuple[tuple[RungResult, ...], ...]
    diverged: tuple[Candidate, ...]
    kept: Candidate
    seed: int
    student: Distillation
    updates: int
    seconds: float

    def last_result(self, candidate: Candidate) -> RungResult:
        """Return the result of a candidate at the last rung that it took part in."""
        return next(result for rung in reversed(self.rungs) for result in rung if result.candidate == candidate)
