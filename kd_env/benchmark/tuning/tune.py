"""Tune the policies of a suite's part: the same number of validation trials for each, on seeds that the report does not use.

A validation trial of a policy is one configuration, with the mean validation score over :data:`SEEDS` as its score; test is not opened. At
the end, the best configuration and the untuned policy are compared on :data:`CHECK_SEEDS`, since the best of many means over two seeds is
higher than its mean over other seeds would be. The untuned policy stays unless the configuration has the higher mean there. The records of
these trials are in ``DIR/tuning``, so that what is finished is not run again after a stop.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from kd_env import tasks
from kd_env.benchmark import records
from kd_env.benchmark.suite_parts import Part
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
CHECK_SEEDS = (102, 103, 104, 105)
"""Seeds on which the best configuration is compared with the untuned policy. No trial of a report may have them either."""

Key = TypeVar("Key", bound=Hashable)
Values = Mapping[str, Value]
Run = Callable[[Sequence[Trial], Path, int, str], None]
"""Runs trials into a folder. The last arguments are the number of seeds that run at once, and a line to show first."""


def require_fresh(seeds: Sequence[int]) -> None:
    """Check that the seeds of a report are not those of tuning.

    Raises:
        InputError: one of them is.
    """
    tuning_seeds = SEEDS + CHECK_SEEDS
    if shared := [seed for seed in seeds if seed in tuning_seeds]:
        raise InputError(f"seed {shared[0]}: policies are tuned with seeds {', '.join(map(str, tuning_seeds))}; give others for the report")


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
            all_trials = [trial for seeds in candidates.values() for trial in seeds]
            run(all_trials, directory, part.population, f"tuning, round {number + 1} of {trials}: {len(proposals)} policies")
            for policy, score in _scores(directory, candidates).items():
                studies[policy].add(proposals[policy], score)
        pairs = {policy: (study.best(trials), spaces[policy].start) for policy, study in studies.items()}
        checks = {
            (policy, index): [
                replace(starts[policy], seed=seed, tuned=spaces[policy].configuration(values, trials)) for seed in CHECK_SEEDS
            ]
            for policy, pair in pairs.items()
            for index, values in enumerate(pair)
        }
        all_trials = list({trial.id: trial for seeds in checks.values() for trial in seeds}.values())
        run(all_trials, directory, part.population, f"comparing the best of {len(pairs)} policies with their defaults on other seeds")
        scores = _scores(directory, checks)
        return _tuned(part, trials, command, spaces, pairs, scores)


def _scores(directory: Path, candidates: Mapping[Key, Sequence[Trial]]) -> dict[Key, float]:
    """Return the mean validation score of the finished trials of each candidate; :data:`WORST` if a student of it diverged."""
    by_id = {record["trial"]: record["validation"] for record in records.read(directory)}
    shutil.rmtree(directory / "traces", ignore_errors=True)  # only the scores are used
    scores = {}
    for key, trials in candidates.items():
        values = [by_id[trial.id] for trial in trials]
        scores[key] = WORST if None in values else sum(values) / len(values)
    return scores


def _study_name(trial: Trial, space: Space) -> str:
    """Return a name that changes with everything that decides the scores of a policy and with what is searched."""
    searched = (space.entries, space.start, sorted(space.options), space.optimizer)  # a set has another order in each process
    return f"{trial.id}-{hashlib.sha256(repr(searched).encode()).hexdigest()[:8]}"


def _tuned(
    part: Part,
    trials: int,
    command: str,
    spaces: Mapping[str, Space],
    pairs: Mapping[str, tuple[Values, Values]],
    scores: Mapping[tuple[str, int], float],
) -> Tuned:
    """Return the better of each policy's pair, the best of its study and the untuned policy; of equal ones the untuned."""
    task = tasks.load(part.task)
    configurations, shown = {}, {}
    for policy, (best, untuned) in pairs.items():
        best_score, untuned_score = scores[policy, 0], scores[policy, 1]
        values = best if best_score > untuned_score else untuned
        chosen = spaces[policy].configuration(values, trials)
        fixed = {name: value for name, value in part.settings_of(policy).items() if name not in ("student", "updates")}
        configurations[policy] = Configuration(chosen.options, {**fixed, **chosen.settings}, trials)
        shown[policy] = (_shown(max(best_score, untuned_score)), _shown(untuned_score))
    settings = part.settings_of()
    student, updates = settings.get("student", task.defaults.student), settings.get("updates", task.defaults.updates)
    seeds = SEEDS + CHECK_SEEDS
    return Tuned(part.task, part.teachers or task.defaults.pool, student, updates, trials, seeds, command, configurations, shown)


def _shown(score: float) -> float:
    return score if score == WORST else round(score, 4)
