"""Tune the policies of a suite's part: the same number of validation trials for each, on seeds that the report does not use.

A validation trial of a policy is one configuration, with the mean validation score over :data:`SEEDS` as its score; test is not opened. The
records of these trials are in ``DIR/tuning``, so that what is finished is not run again after a stop.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from kd_env import tasks
from kd_env.benchmark import records
from kd_env.benchmark.suites import Part
from kd_env.benchmark.trial import Trial
from kd_env.benchmark.tuning.configuration import Configuration
from kd_env.benchmark.tuning.files import Tuned
from kd_env.benchmark.tuning.space import Space, Value, space_of
from kd_env.benchmark.tuning.study import WORST, Study
from kd_env.errors import InputError
from kd_env.paths import claim_folder

FOLDER = "tuning"
SEEDS = (100, 101)
"""Seeds of a validation trial. No trial of a report may have them."""

Run = Callable[[Sequence[Trial], Path, int, str], None]
"""Runs trials into a folder. The last arguments are the number of seeds that run at once, and a line to show first."""


def require_fresh(seeds: Sequence[int]) -> None:
    """Check that the seeds of a report are not those of tuning.

    Raises:
        InputError: one of them is.
    """
    if shared := [seed for seed in seeds if seed in SEEDS]:
        raise InputError(f"seed {shared[0]}: policies are tuned with seeds {', '.join(map(str, SEEDS))}; give others for the report")


def tune(part: Part, trials: int, out: Path, command: str, run: Run) -> Tuned:
    """Return the best configuration of each policy of ``part`` after ``trials`` validation trials of each.

    Args:
        out: the results folder.
        command: command line of the user.
        run: runs trials.

    Raises:
        InputError: a policy declares a search space that cannot be used, or another process is tuning into the folder.
    """
    directory = out / FOLDER
    directory.mkdir(parents=True, exist_ok=True)
    with claim_folder(directory, "tuning into it"):
        starts = {trial.policy: replace(trial, test=False) for trial in part.trials(FOLDER, SEEDS[:1], command)}
        spaces = {policy: space_of(trial) for policy, trial in starts.items()}
        studies = {policy: Study(directory, _study_name(trial, spaces[policy]), spaces[policy]) for policy, trial in starts.items()}
        finished = min(study.finished for study in studies.values())
        for number in range(finished, trials):
            proposals = {policy: study.propose() for policy, study in studies.items() if study.finished <= number}
            candidates = {
                policy: [replace(starts[policy], seed=seed, tuned=spaces[policy].configuration(values, number + 1)) for seed in SEEDS]
                for policy, values in proposals.items()
            }
            every = [trial for seeds in candidates.values() for trial in seeds]
            run(every, directory, part.population, f"tuning, round {number + 1} of {trials}: {len(proposals)} policies")
            _score(directory, studies, proposals, candidates)
        return _tuned(part, trials, command, spaces, studies)


def _score(directory: Path, studies: dict[str, Study], proposals: dict[str, dict[str, Value]], candidates: dict[str, list[Trial]]) -> None:
    by_id = {record["trial"]: record["validation"] for record in records.read(directory)}
    for policy, values in proposals.items():
        scores = [by_id[trial.id] for trial in candidates[policy]]
        studies[policy].add(values, None if None in scores else sum(scores) / len(scores))
    shutil.rmtree(directory / "traces", ignore_errors=True)  # a validation trial is a score, and nothing else is asked of it


def _study_name(trial: Trial, space: Space) -> str:
    """Return a name that changes with everything that decides the scores of a policy and with what is searched."""
    searched = (space.entries, space.start, sorted(space.options), space.optimizer)  # a set has another order in each process
    return f"{trial.id}-{hashlib.sha256(repr(searched).encode()).hexdigest()[:8]}"


def _tuned(part: Part, trials: int, command: str, spaces: dict[str, Space], studies: dict[str, Study]) -> Tuned:
    best = {policy: study.best(trials) for policy, study in studies.items()}
    task = tasks.load(part.task)
    configurations = {}
    for policy, (values, _) in best.items():
        best_values = spaces[policy].configuration(values, trials)
        fixed = {name: value for name, value in part.settings_of(policy).items() if name not in ("student", "updates")}
        configurations[policy] = Configuration(best_values.options, {**fixed, **best_values.settings}, trials)
    scores = {policy: (_shown(score), _shown(studies[policy].first_score)) for policy, (_, score) in best.items()}
    settings = part.settings_of()
    student, updates = settings.get("student", task.defaults.student), settings.get("updates", task.defaults.updates)
    return Tuned(part.task, part.teachers or task.defaults.pool, student, updates, trials, SEEDS, command, configurations, scores)


def _shown(score: float) -> float:
    return score if score == WORST else round(score, 4)
