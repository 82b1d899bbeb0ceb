"""Say what a race has shown. In: its result. Out: a page in Markdown, and the same as JSON."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from kd_env.benchmark.race.candidates import NO_TEACHER, Candidate
from kd_env.benchmark.race.race import Result, Standing
from kd_env.benchmark.race.score import Difference, difference, judging_splits, num_judging
from kd_env.benchmark.report_text import NO_VALUE, interval, number
from kd_env.tasks import Task


@dataclass(frozen=True)
class RaceFacts:
    """What the page says besides the result.

    Attributes:
        student: name of the student.
        teachers: names of the teachers.
        budget: the budget as text.
        test: score of the kept student on test with its 95 % interval; ``None`` where there is no test split.
        command: command line, or nothing.
    """

    student: str
    teachers: tuple[str, ...]
    budget: str
    test: tuple[float, float, float] | None = None
    command: str = ""


def verdict(task: Task, result: Result) -> str:
    """Return whether the teachers help, and how sure that is."""
    plain = next((standing.candidate for standing in result.standings[0] if standing.candidate.policy == NO_TEACHER), None)
    if plain is None:
        return "Whether the teachers help was not asked: without hard labels (kd_weight=1) there is no student without a teacher."
    taught = _best_taught(result) if result.kept == plain else result.kept
    gain, rung = compared(task, result, taught, plain)
    low, high = gain.interval
    labels, updates = f"{gain.examples:,} labels", f"{result.plan.rungs[rung].until:,} of {result.plan.updates:,} updates"
    about = f"{taught.name} minus the student without a teacher is {interval(gain.mean, low, high, '+')} on {labels}, after {updates}"
    if result.kept == plain:
        doubt = f" A gain of up to {number(high)} is not excluded." if high > 0 else ""
        return f"**Teachers do not help here.** {about}. The student that learned from the labels alone is kept.{doubt}"
    if low > 0:
        return f"**Teachers help here.** {about}."
    return f"**Teachers may help here.** {about}; the interval includes 0."


def compared(task: Task, result: Result, one: Candidate, other: Candidate) -> tuple[Difference, int]:
    """Return the difference of two candidates at the last rung that both took part in, and that rung."""
    for rung in reversed(result.standings):
        standings = {standing.candidate.name: standing for standing in rung}
        if one.name in standings and other.name in standings:
            return difference(task, standings[one.name].predictions, standings[other.name].predictions), standings[one.name].rung
    raise AssertionError("all candidates took part in the first rung")


def candidate_table(task: Task, result: Result) -> list[str]:
    """Return the lines of a table of all candidates, the kept one first."""
    head = ["candidate", "seeds", "updates", task.metric, "labels", "minus the kept one [95 %]"]
    rows = [_cells(task, result, standing) for standing in _last_standings(result)]
    rows += [[candidate.name, NO_VALUE, NO_VALUE, "diverged", NO_VALUE, NO_VALUE] for candidate in result.diverged]
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)]


def what_decides(task: Task, result: Result, facts: RaceFacts) -> list[str]:
    """Return the lines of a list that says how the student was chosen."""
    splits = judging_splits(task, reads_reward_labels=False)
    labels = " and ".join(f"{len(getattr(task, split)):,} of {split}" for split in splits)
    both = " Policies that learn from the labels of reward are judged on validation alone." if len(splits) > 1 else ""
    rungs = "; ".join(f"{len(rung)} to {result.plan.rungs[number_].until:,} updates" for number_, rung in enumerate(result.standings))
    simplest = "; ".join(one.candidate.name for one in sorted(result.standings[0], key=lambda standing: standing.candidate.rank))
    return [
        f"- The labels that decide: {labels}.{both} No student has learned from them. The test split decides nothing.",
        "- A candidate is compared with the kept one at the last rung that both took part in, on the same examples. Scores after other "
        "numbers of updates cannot be compared.",
        f"- Candidates at each rung: {rungs}. Each goes on from where it was.",
        "- The student without a teacher stays until the last choice.",
        f"- The last choice is the simplest candidate within one standard error of the best. From the simplest: {simplest}.",
        f"- Budget: {facts.budget}. All students had {_taught(result):,} updates and {result.seconds:,.0f} seconds of processor time.",
    ]


def page(task: Task, result: Result, facts: RaceFacts) -> str:
    """Return the page."""
    kept = result.last(result.kept)
    lines = [
        f"# The best student for {task.name}",
        "",
        f"**Kept: {result.kept.name}**, seed {result.seed}. {verdict(task, result)}",
        "",
        f"- {task.metric} on {num_judging(task, kept.predictions):,} held-out labels that chose it: {number(kept.score)}",
    ]
    if facts.test is not None and task.test is not None:
        lines.append(f"- {task.metric} on {len(task.test):,} test labels, which chose nothing: {interval(*facts.test)}")
    lines += ["", f"Student: {facts.student}. Teachers: {', '.join(facts.teachers)}.", "", "## What was compared", ""]
    lines += [*candidate_table(task, result), "", "## What decides", "", *what_decides(task, result, facts)]
    lines += ["", "## How to reproduce", "", "```", facts.command, "```"] if facts.command else []
    return "\n".join(lines) + "\n"


def as_json(task: Task, result: Result, facts: RaceFacts) -> dict[str, Any]:
    """Return the content of the page as values for JSON."""
    rows = []
    for standing in _last_standings(result):
        against = None if standing.candidate == result.kept else compared(task, result, standing.candidate, result.kept)
        rows.append(
            {
                "candidate": standing.candidate.name,
                "policy": standing.candidate.policy,
                "settings": standing.candidate.options,
                "seeds": _seeds(standing),
                "updates": result.plan.rungs[standing.rung].until,
                "score": standing.score,
                "labels": num_judging(task, standing.predictions),
                "minus_kept": against and [against[0].mean, *against[0].interval],
                "compared_after": against and result.plan.rungs[against[1]].until,
            }
        )
    return {
        "task": task.name,
        "metric": task.metric,
        "student": facts.student,
        "teachers": list(facts.teachers),
        "budget": facts.budget,
        "kept": {"candidate": result.kept.name, "seed": result.seed},
        "verdict": verdict(task, result).replace("**", ""),
        "test": facts.test and list(facts.test),
        "rungs": [[rung.until, rung.left, rung.seeds] for rung in result.plan.rungs],
        "candidates": rows,
        "diverged": [candidate.name for candidate in result.diverged],
        "updates": _taught(result),
        "seconds": round(result.seconds, 1),
    }


def _best_taught(result: Result) -> Candidate:
    """Return the best candidate with teachers that was left longest."""
    return next(one.candidate for rung in reversed(result.standings) for one in rung if one.candidate.policy != NO_TEACHER)


def _last_standings(result: Result) -> list[Standing]:
    """Return the last standing of each candidate: the kept one, then those that were left longest and scored best."""
    last = [result.last(standing.candidate) for standing in result.standings[0]]
    return sorted(last, key=lambda one: (one.candidate != result.kept, -one.rung, -one.score))


def _cells(task: Task, result: Result, standing: Standing) -> list[str]:
    kept = standing.candidate == result.kept
    name = f"**{standing.candidate.name}**" if kept else standing.candidate.name
    numbers = [str(_seeds(standing)), f"{result.plan.rungs[standing.rung].until:,}", number(standing.score)]
    gain = None if kept else compared(task, result, standing.candidate, result.kept)[0]
    against = "kept" if gain is None else interval(gain.mean, *gain.interval, "+")
    return [name, *numbers, f"{num_judging(task, standing.predictions):,}", against]


def _seeds(standing: Standing) -> int:
    return len(standing.predictions["validation"])


def _taught(result: Result) -> int:
    """Return the updates of all students together."""
    last = [result.last(standing.candidate) for standing in result.standings[0]]
    return sum(_seeds(standing) * result.plan.rungs[standing.rung].until for standing in last)
