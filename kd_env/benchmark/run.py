"""Run trials, in this process or several. In: trials and a folder. Out: their records in it.

Finished trials are not run again, and unfinished trials continue from their checkpoints, so the same command resumes a stopped run. A trial
is deterministic on CPU, so neither the number of workers nor interruptions change a result.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from dataclasses import asdict, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from kd_env import tasks
from kd_env.bank.assumptions import cut_lines, teacher_lines
from kd_env.bank.bank import open_bank
from kd_env.bank.shards import MapShards, one_after_another
from kd_env.benchmark import process_executor, ray_executor, records
from kd_env.benchmark.changed_code import changed_code
from kd_env.benchmark.changed_defaults import require_same_defaults
from kd_env.benchmark.checkpoints import FOLDER, CheckpointSettings
from kd_env.benchmark.default_student import default_student_line
from kd_env.benchmark.kept_students import FOLDER as STUDENTS
from kd_env.benchmark.kept_students import delete_others
from kd_env.benchmark.progress import Progress
from kd_env.benchmark.ray_cluster import check_gpus, load_early, ray_cluster
from kd_env.benchmark.ray_shards import shards_with_ray
from kd_env.benchmark.run_trial import make_env, policy_of
from kd_env.benchmark.shared_trials import run_all, run_unit, runs_again
from kd_env.benchmark.trial import Trial
from kd_env.errors import InputError
from kd_env.interrupts import CHECKPOINT_MINUTES
from kd_env.models.networks import build
from kd_env.paths import sweep
from kd_env.policies.policy_state import has_state, no_state_message
from kd_env.randomness import make_reproducible
from kd_env.spec import one_of
from kd_env.student.population import refuse_unbatched_layers
from kd_env.teachers import load_pool

EXECUTORS = ("local", "process", "ray")


def run(
    trials: Sequence[Trial],
    directory: str | Path,
    progress: Progress,
    workers: int = 1,
    population: int = 1,
    checkpoint_minutes: float = CHECKPOINT_MINUTES,
    executor: str = "process",
    gpus_per_trial: float = 0.0,
) -> None:
    """Run the trials that are not finished yet; each record is written as soon as its trial ends.

    Other processes may run trials of the same folder at the same time; then the trials are shared.

    Args:
        directory: the results folder.
        workers: number of processes.
        population: number of seeds of a trial that are taught at once, as one population of students.
        checkpoint_minutes: time between two checkpoints of a trial.
        executor: ``local``, one after the other in this process; ``process``, in ``workers`` processes; ``ray``, on a Ray cluster.
        gpus_per_trial: part of a GPU that Ray reserves for a trial, and for each part of a bank that is built.

    Raises:
        InputError: something in a trial cannot be used; raised before any trial starts where that can be seen.
    """
    one_of("run", *EXECUTORS, executor=executor)
    if gpus_per_trial and executor != "ray":
        raise InputError(f"gpus_per_trial={gpus_per_trial}: only Ray reserves GPUs; use executor=ray, or leave it out")
    if executor == "process" and workers > 1 and len(trials) > 1:
        process_executor.load_early()
    directory = Path(directory)
    _require_folder(directory)
    _sweep(directory)
    checkpoints = CheckpointSettings(directory, checkpoint_minutes, progress.say)
    trials = list({trial.id: trial for trial in trials}.values())  # an invalid trial raises here, before any other starts
    finished = records.FinishedTrials(directory)
    done = finished.update()
    todo = [trial for trial in trials if trial.id not in done or runs_again(trial, checkpoints)]
    require_same_defaults(trials, directory)
    if unlogged := sum(trial.tensorboard for trial in trials) - sum(trial.tensorboard for trial in todo):
        progress.say(f"TensorBoard: no log of the {unlogged} trials that are finished; give another --out to log all")
    for line in changed_code([trial for trial in trials if trial.id in done], directory):
        progress.say(line)
    make_reproducible()
    with ray_cluster(workers) if executor == "ray" and todo else nullcontext() as ray:
        if ray is not None:
            check_gpus(ray, "--gpus-per-trial", gpus_per_trial, progress.say)
            load_early(ray, len(todo), list(dict.fromkeys(trial.task for trial in todo)))
        prepare(todo, progress, one_after_another if ray is None else shards_with_ray(ray, gpus_per_trial))
        _try_out(todo, progress)
        total = sum(trial.updates for trial in todo)
        progress.start(len(todo), total, skipped=len(trials) - len(todo))
        units = _together(todo, population)
        if population > 1:
            for policy in dict.fromkeys(trial.policy for trial in todo if _runs_alone(trial)):
                progress.say(f"policy {policy} teaches one student at a time: its seeds are run one by one")
            students = dict.fromkeys((trial.task, trial.resolved.settings.distillation.student) for trial in todo)
            for student in dict.fromkeys(student for task, student in students if not _can_be_stacked(task, student)):
                progress.say(f"student {student} cannot be taught in a population (BatchNorm): its seeds are run one by one")
        if ray is not None:
            ray_executor.run_with_ray(ray, units, checkpoints, finished, progress, gpus_per_trial)
        elif executor == "process" and workers > 1 and len(units) > 1:
            try:
                process_executor.run_in_processes(units, checkpoints, finished, progress, workers)
            except BaseException:
                _sweep(directory)
                raise
        else:
            run_all(units, lambda units: (run_unit(unit, checkpoints, finished, progress.reporter) for unit in units), progress)
    if any(trial.keep == "best" for trial in trials):
        delete_others(directory, finished.update())  # also of a process that was killed before it did that
    with suppress(OSError):  # it holds checkpoints of other trials, or was never made
        (directory / FOLDER).rmdir()


def prepare(trials: Sequence[Trial], progress: Progress, map_shards: MapShards = one_after_another) -> None:
    """Train pools and build banks once, so that workers find them. Say how the teachers score, and what was assumed."""
    for task_name, teachers, bank in dict.fromkeys((trial.task, trial.teachers, trial.bank) for trial in trials):
        task = tasks.load(task_name)
        text = task.defaults.pool if teachers is None else teachers
        progress.say(f"preparing {task.name}, pool {text}")
        pool = load_pool(text, task, progress.teaching)
        opened = open_bank(task, pool, None if bank is None else Path(bank), progress.bank, map_shards=map_shards)
        of_pool = [trial for trial in trials if (trial.task, trial.teachers, trial.bank) == (task_name, teachers, bank)]
        students = dict.fromkeys(trial.resolved.settings.distillation.student for trial in of_pool)
        lines = [line for student in students for line in cut_lines(task, pool, student)]
        for line in dict.fromkeys([*teacher_lines(task, pool, opened), *lines]):
            progress.say(line)
        if any("student" not in trial.settings and trial.suite in ("run", "distill") for trial in of_pool):
            student = task.defaults.student
            progress.say(default_student_line(student, build(student, task, 0), pool))


def _try_out(trials: Sequence[Trial], progress: Progress) -> None:
    """Build each policy and its environment once, so that one that cannot work stops the run before its first trial."""
    lines = []
    for trial in {(trial.task, trial.policy, trial.policy_from, str(trial.tuned)): trial for trial in reversed(trials)}.values():
        if not has_state(policy := policy_of(trial, make_env(trial))):
            lines.append(no_state_message(policy, trial.policy))
    for line in dict.fromkeys(reversed(lines)):
        progress.say(line)


def _sweep(directory: Path) -> None:
    for name in ("traces", "policies", FOLDER, STUDENTS):
        sweep(directory / name)


def _require_folder(directory: Path) -> None:
    place = next(path for path in (directory, *directory.absolute().parents) if path.exists() or path.is_symlink())
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        raise InputError(f"results folder {directory}: {place} is not a folder that can be written to; name another place")


def _together(trials: Sequence[Trial], most: int) -> list[list[Trial]]:
    """Return units of up to ``most`` trials that differ in their seeds alone, in the order of their first trials.

    A trial whose student has peers is a unit by itself, and so is one whose policy teaches one student at a time, or whose student has
    layers that cannot be run in a population, such as BatchNorm.
    """
    groups: dict[Any, list[tuple[int, Trial]]] = {}
    for position, trial in enumerate(trials):
        alike = replace(trial, seed=0, policy_from=None if trial.policy_from is None else "each its own")
        groups.setdefault(json.dumps(asdict(alike), sort_keys=True), []).append((position, trial))
    units = []
    for group in groups.values():
        first = group[0][1]
        alone = _runs_alone(first) or (most > 1 and not _can_be_stacked(first.task, first.resolved.settings.distillation.student))
        size = 1 if alone else most
        units += [group[start : start + size] for start in range(0, len(group), size)]
    return [[trial for _, trial in unit] for unit in sorted(units, key=lambda unit: unit[0][0])]


def _runs_alone(trial: Trial) -> bool:
    policy = trial.resolved.policy
    return policy.owns_loop or not policy.supports_population or trial.resolved.settings.distillation.num_students > 1


@lru_cache
def _can_be_stacked(task: str, student: str) -> bool:
    """Return whether students of this name can be taught in a population."""
    try:
        refuse_unbatched_layers(build(student, tasks.load(task), 0))
    except InputError:
        return False
    return True
