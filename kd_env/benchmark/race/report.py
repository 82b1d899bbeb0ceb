"""Write the report of a race. In: its result. Out: a page in Markdown, and the same content for JSON."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from kd_env.benchmark.race.candidates import NO_TEACHER, Candidate
from kd_env.benchmark.race.results import RaceResult, RungResult
from kd_env.benchmark.race.score import DECISIVE_LEAD, Difference, constant_score, difference, num_scored
from kd_env.benchmark.report_text import NO_VALUE, interval, number
from kd_env.tasks import Task


@dataclass(frozen=True)
class RaceFacts:
    """What the report contains besides the result.

    Attributes:
        student: name of the student.
        teachers: names of the teachers.
        budget: the budget as text.
        test: score of the kept student on test with its 95 % interval; ``None`` where there is no test split.
        command: the command line; empty if there was none.
    """

    student: str
    teachers: tuple[str, ...]
    budget: str
    test: tuple[float, float, float] | None = None
    command: str = ""


def verdict(task: Task, result: RaceResult) -> str:
    """Return a sentence that says whether the teachers help, with the interval of the difference."""
    kept_result = result.last_result(result.kept)
    if kept_result.score <= (constant := constant_score(task, kept_result.predictions)):
        return (
            f"**The student has not learned.** Its {task.metric} of {number(kept_result.score)} is not above {number(constant)}, the score "
            "of predicting one class for every example, so nothing can be said of the teachers. Use more --updates, a higher lr "
            "(--set optimizer=...) or another student."
        )
    no_teacher = next((rung_result.candidate for rung_result in result.rungs[0] if rung_result.candidate.policy == NO_TEACHER), None)
    if no_teacher is None and any(candidate.policy == NO_TEACHER for candidate in result.diverged):
        return "Whether the teachers help is not known: the student without a teacher diverged."
    if no_teacher is None:
        return "Whether the teachers help was not tested: without hard labels (kd_weight=1) there is no student without a teacher."
    with_teachers = _best_with_teachers(result) if result.kept == no_teacher else result.kept
    gain, rung = compare(task, result, with_teachers, no_teacher)
    low, high = gain.interval
    labels, updates = f"{gain.examples:,} labels", f"{result.plan.rungs[rung].updates:,} of {result.plan.updates:,} updates"
    gain_text = interval(gain.mean, low, high, "+")
    comparison = f"{with_teachers.name} minus the student without a teacher is {gain_text} on {labels}, after {updates}"
    if result.kept == no_teacher:
        possible_gain = f" A gain of up to {number(high)} is not excluded." if high > 0 else ""
        return f"**Teachers do not help here.** {comparison}. The student that learned from the labels alone is kept.{possible_gain}"
    if low > 0:
        return f"**Teachers help here.** {comparison}."
    return f"**Teachers may help here.** {comparison}; the interval includes 0."


def compare(task: Task, result: RaceResult, candidate: Candidate, baseline: Candidate) -> tuple[Difference, int]:
    """Return the score of ``candidate`` minus that of ``baseline`` at the last rung that both took part in, and the index of that rung."""
    for rung in reversed(result.rungs):
        results = {rung_result.candidate.name: rung_result for rung_result in rung}
        if candidate.name in results and baseline.name in results:
            gain = difference(task, results[candidate.name].predictions, results[baseline.name].predictions)
            return gain, results[candidate.name].rung
    raise AssertionError("all candidates took part in the first rung")


def candidate_table(task: Task, result: RaceResult) -> list[str]:
    """Return the lines of a Markdown table of all candidates, the kept one first."""
    head = ["candidate", "seeds", "updates", task.metric, "loss", "labels", "minus the kept one [95 %]"]
    rows = [_cells(task, result, last) for last in _last_results(result) if last.candidate not in result.diverged]
    rows += [[candidate.name, NO_VALUE, NO_VALUE, "diverged", NO_VALUE, NO_VALUE, NO_VALUE] for candidate in result.diverged]
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)]


def selection_rules(task: Task, result: RaceResult, facts: RaceFacts) -> list[str]:
    """Return the lines of a Markdown list that says how the student was chosen."""
    splits = max((rung_result.predictions for rung_result in result.rungs[0]), key=len)
    labels = " and ".join(f"{len(getattr(task, split)):,} of {split}" for split in splits)
    exception = " Policies that use the labels of reward are scored on validation alone." if len(splits) > 1 else ""
    rungs = "; ".join(f"{len(rung)} to {result.plan.rungs[rung[0].rung].updates:,} updates" for rung in result.rungs)
    by_simplicity = sorted((rung_result.candidate for rung_result in result.rungs[0]), key=lambda candidate: candidate.rank)
    names, policies = "; ".join(candidate.name for candidate in by_simplicity), {candidate.policy for candidate in by_simplicity}
    return [
        f"- Candidates are scored on {labels}.{exception} These students have not learned from them. The test split is not used.",
        "- A candidate is compared with the kept one at the last rung that both took part in, on the same examples. Scores after different "
        "numbers of updates cannot be compared.",
        f"- Candidates at each rung: {rungs}. Students are taught further, they do not start again.",
        f"- At a rung, the candidates within one standard error of the best {task.metric} are ordered by their loss: the cross-entropy on "
        f"the same labels after temperature scaling. The others follow by score.{_constant_rungs(result)}",
        *(["- The student without a teacher stays until the last choice."] if NO_TEACHER in policies else []),
        f"- The last choice is the simplest candidate that the best one does not lead by {DECISIVE_LEAD:.3g} standard errors (95 %, "
        f"one-sided). The order, from the simplest: {names}.",
        f"- Budget: {facts.budget}. All students took {result.updates:,} updates and {result.seconds:,.0f} s of processor time.",
    ]


def page(task: Task, result: RaceResult, facts: RaceFacts) -> str:
    """Return the report in Markdown."""
    kept_result = result.last_result(result.kept)
    lines = [
        f"# The best student for {task.name}",
        "",
        f"**Kept: {result.kept.name}**, seed {result.seed}. {verdict(task, result)}",
        "",
        f"- {task.metric} on {num_scored(task, kept_result.predictions):,} held-out labels that it was chosen by: "
        f"{number(kept_result.score)}",
    ]
    if facts.test is not None and task.test is not None:
        lines.append(f"- {task.metric} on {len(task.test):,} test labels, which were not used to choose: {interval(*facts.test)}")
    lines += ["", f"Student: {facts.student}. Teachers: {', '.join(facts.teachers)}.", "", "## What was compared", ""]
    lines += [*candidate_table(task, result), "", "## How the student was chosen", "", *selection_rules(task, result, facts)]
    lines += ["", "## How to reproduce", "", "```", facts.command, "```"] if facts.command else []
    return "\n".join(lines) + "\n"


def as_json(task: Task, result: RaceResult, facts: RaceFacts) -> dict[str, Any]:
    """Return the content of the report for JSON."""
    rows = []
    for last in _last_results(result):
        comparison = None if last.candidate == result.kept else compare(task, result, last.candidate, result.kept)
        rows.append(
            {
                "candidate": last.candidate.name,
                "policy": last.candidate.policy,
                "settings": last.candidate.options,
                "seeds": _num_seeds(last),
                "updates": result.plan.rungs[last.rung].updates,
                "score": last.score,
                "loss": last.loss,
                "labels": num_scored(task, last.predictions),
                "minus_kept": comparison and [comparison[0].mean, *comparison[0].interval],
                "compared_after": comparison and result.plan.rungs[comparison[1]].updates,
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
        "rungs": [[rung.updates, rung.candidates, rung.seeds] for rung in result.plan.rungs],
        "candidates": rows,
        "diverged": [candidate.name for candidate in result.diverged],
        "updates": result.updates,
        "seconds": round(result.seconds, 1),
    }


def _best_with_teachers(result: RaceResult) -> Candidate:
    """Return the candidate with teachers that scored best at the last rung that has one."""
    return next(last.candidate for rung in reversed(result.rungs) for last in rung if last.candidate.policy != NO_TEACHER)


def _last_results(result: RaceResult) -> list[RungResult]:
    """Return the last result of each candidate: of the kept one first, then by rung and rank."""
    last_results = {last.candidate.name: last for rung in result.rungs for last in rung}
    by_rank = dict.fromkeys(last.candidate.name for rung in reversed(result.rungs) for last in rung)
    return sorted((last_results[name] for name in by_rank), key=lambda last: last.candidate != result.kept)


def _constant_rungs(result: RaceResult) -> str:
    """Return a sentence on the last rung after which every student still predicted one class for all examples; empty if there is none."""
    for rung in reversed(result.rungs):
        if all((classes == classes[:, :1]).all() for last in rung for classes in last.predictions.values()):
            updates = result.plan.rungs[rung[0].rung].updates
            return f" After {updates:,} updates every student still predicted one class for every example, so loss decided."
    return ""


def _cells(task: Task, result: RaceResult, last: RungResult) -> list[str]:
    """Return a row of the table of candidates."""
    is_kept = last.candidate == result.kept
    name = f"**{last.candidate.name}**" if is_kept else last.candidate.name
    numbers = [
        str(_num_seeds(last)),
        f"{result.plan.rungs[last.rung].updates:,}",
        number(last.score),
        number(last.loss),
        f"{num_scored(task, last.predictions):,}",
    ]
    if is_kept:
        return [name, *numbers, "kept"]
    gain, _ = compare(task, result, last.candidate, result.kept)
    return [name, *numbers, interval(gain.mean, *gain.interval, "+")]


def _num_seeds(rung_result: RungResult) -> int:
    return len(rung_result.predictions["validation"])
