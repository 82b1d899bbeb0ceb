"""Run a trial. In: a :class:`~kd_env.benchmark.trial.Trial`. Out: its record and its trace.

``teach`` teaches the students; the rest builds the parts before and measures after. The test split is opened here, after the student is
finished, and nowhere else.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import gymnasium as gym
import torch

from kd_env import tasks
from kd_env.benchmark import saved_policies
from kd_env.benchmark.checkpoints import Checkpoint, CheckpointSettings
from kd_env.benchmark.recorder import Recorder
from kd_env.benchmark.records import Record
from kd_env.benchmark.shared_student import num_processes
from kd_env.benchmark.tensorboard_log import TensorBoardLog
from kd_env.benchmark.trial import Trial
from kd_env.benchmark.versions import processor, versions
from kd_env.distillation import Distillation
from kd_env.envs.selection import Selection
from kd_env.envs.settings import Settings
from kd_env.errors import InputError
from kd_env.interrupts import deferred_interrupts
from kd_env.policies.access import effective_access
from kd_env.policies.episode import run_episode, run_population_episode
from kd_env.policies.faults import faults_of
from kd_env.policies.optional_methods import learned_by, selection_entropy_of
from kd_env.policies.protocol import OwnsLoop
from kd_env.teachers import heads

EPISODE_SEEDS = 1_000_003
"""Distance between the seeds of two students that one policy teaches in a row."""

Report = Callable[[int, float | None], None]
"""Called with the number of updates since the last call, and validation if it was measured."""


def teach(env: Any, policies: Sequence[Any], seeds: Sequence[int], frozen: bool = False, checkpoint: Checkpoint | None = None) -> None:
    """Teach one student per policy to the end of its budget; a policy that learns over several students teaches those first.

    A policy with ``learn`` drives the environment itself; it is then the only one. ``frozen`` policies teach without learning. With a
    ``checkpoint``, the trials are resumed from it and saved to it.
    """
    if not frozen and isinstance(policies[0], OwnsLoop):
        with faults_of(policies[0], "learn"):
            policies[0].learn(env, env.selection.settings.distillation.updates)
        return
    training_episodes = 0 if frozen else getattr(policies[0], "training_episodes", 0)
    first = training_episodes if checkpoint is None else checkpoint.first_episode(training_episodes)
    for episode in range(first, -1, -1):
        learning = not frozen and (episode > 0 or not training_episodes or getattr(policies[0], "learns_on_the_last", False))
        starts = [seed + EPISODE_SEEDS * episode for seed in seeds]  # the final student starts from the seed itself
        resume_from, after_update = (
            (None, None) if checkpoint is None else (checkpoint.episode_state(episode), checkpoint.after_update(episode))
        )
        with nullcontext() if after_update is None else deferred_interrupts():
            if len(policies) == 1:
                run_episode(env, policies[0], starts[0], learning, resume_from, after_update)
            else:
                run_population_episode(env, policies, starts, learning, resume_from, after_update)


def make_env(trial: Trial, trials: int = 1) -> Any:
    """Return the environment of a trial, or of several that differ in their seeds alone.

    It has one slot per instance of a mini-batch, or one per mini-batch, and one student per trial, or with peers ``num_students``.
    """
    resolved, students = trial.resolved, trials * trial.resolved.settings.distillation.num_students
    return make_slots(resolved.policy.environment, resolved.settings, students, {**resolved.env_keywords, "autoreset_mode": "same_step"})


def make_slots(environment: str, settings: Settings, students: int, keywords: Mapping[str, Any]) -> Any:
    """Return an environment for ``students`` students, with these ``keywords``; their batch size and number of students are replaced."""
    per_instance = settings.interface.granularity == "instance"
    own_arguments = ("num_students", "batch_size") if per_instance else ("num_students",)
    return gym.make_vec(
        environment,
        num_envs=students * (settings.distillation.batch_size if per_instance else 1),
        num_students=students,
        vectorization_mode="vector_entry_point",
        **{name: value for name, value in keywords.items() if name not in own_arguments},
    ).unwrapped


def run_trial(trial: Trial, directory: Path, report: Report | None = None) -> Record:
    """Distil, evaluate and write the trace; return the record, which is not written yet.

    Raises:
        InputError: something in the trial cannot be used.
    """
    return run_trials([trial], directory, lambda _: report)[0]


def run_trials(
    trials: Sequence[Trial],
    directory: Path,
    report: Callable[[Trial], Report | None],
    keep: Callable[[Trial, Distillation], None] | None = None,
    checkpoints: CheckpointSettings | None = None,
) -> list[Record]:
    """Run trials that differ in their seeds alone, with their students taught as one population; return their records.

    Where students have peers, the first student is the trial's.

    Args:
        report: returns the progress callback of a trial.
        keep: called with each trial and its finished run.
        checkpoints: where and how often the trials are saved while they run. Default: they are not saved.

    Raises:
        InputError: several trials whose students have peers, or whose policy teaches one student at a time; or something in a trial cannot
            be used.
    """
    started = time.perf_counter()
    peers = trials[0].resolved.settings.distillation.num_students - 1
    if peers and len(trials) > 1:
        raise InputError(f"population: a trial of policy {trials[0].policy!r} is a population already; run one at a time")
    env, policy_class = make_env(trials[0], len(trials)), trials[0].resolved.policy
    if len(trials) > 1 and (policy_class.owns_loop or not policy_class.supports_population):
        raise InputError(f"population: policy {policy_class.name!r} teaches one student at a time; run it without --population")
    selection: Selection = env.selection
    selection.use_label_seeds([trial.resolved.settings.reward.label_seed for trial in trials for _ in range(1 + peers)])
    checkpoint = None if checkpoints is None else Checkpoint(checkpoints, trials, env, versions())
    policies = [policy_of(trial, env, number if len(trials) > 1 else None) for number, trial in enumerate(trials)]
    policies = policies if checkpoint is None else checkpoint.restore_policies(policies)
    recorders, logs = [], []
    for number, (trial, policy) in enumerate(zip(trials, policies, strict=True)):
        skip = 0 if trial.frozen else getattr(policy, "training_episodes", 0)
        recorders.append(
            Recorder(selection, report(trial), number, skip, peers, selection_entropy_of(policy, selection.observation_set.teacher_blocks))
        )
        if trial.tensorboard:
            logs.append(TensorBoardLog(directory, trial, selection, number, recorders[-1]))
    selection.listeners += [*logs, *recorders]  # logs come first, since recorders know when a student is finished
    try:
        if checkpoint is not None:
            checkpoint.attach(policies, recorders)
        teach(env, policies, [trial.seed for trial in trials], trials[0].frozen, checkpoint)
    finally:
        for log in logs:
            log.close()
        selection.listeners.clear()  # they hold the environment: without this cycle it is freed when the trial is over
    updates = selection.settings.distillation.updates
    for recorder in recorders:
        if recorder.finished is None:
            raise InputError(f"policy {policy_class.name!r}: its learn() stopped before {updates} updates; it must drive env that long")
    wall = (time.perf_counter() - started if checkpoint is None else checkpoint.elapsed) / len(trials)
    records = []
    for number, trial in enumerate(trials):
        started = time.perf_counter()
        record = {**_record(trial, directory, selection, recorders[number]), **learned_by(policies[number])}
        record["wall_s"] = round(wall + time.perf_counter() - started, 3)
        if len(trials) > 1:
            record["config"]["population"] = len(trials)
        if num_processes() > 1:
            record["processes"] = num_processes()
        records.append(record)
        if keep is not None and (finished := recorders[number].finished) is not None:
            keep(trial, finished)
        if trial.save_policy and saved_policies.can_be_saved(policy_class):
            saved_policies.save(directory, policies[number], _source(trial, env))
    del env.selection  # libraries such as Stable-Baselines3 keep the environment in reference cycles; its students go now
    return records


def policy_of(trial: Trial, env: Any, student: int | None = None) -> Any:
    """Return the policy of a trial, new or saved; see :meth:`~kd_env.policies.registry.PolicyClass.build`.

    Raises:
        InputError: it cannot be built, or the saved one does not fit the trial.
    """
    policy = trial.resolved.policy
    if trial.policy_from is None:
        return policy.build(env, trial.seed, student)
    return saved_policies.load(policy, Path(trial.policy_from), env, trial.resolved.task.num_classes, student)


def _source(trial: Trial, env: Any) -> saved_policies.Source:
    task, settings = trial.resolved.task, trial.resolved.settings
    shape = saved_policies.shape_of(env, task.num_classes)
    updates = settings.distillation.updates
    return saved_policies.Source(trial.policy, trial.id, task.name, env.selection.pool.name, trial.seed, updates, shape)


def _record(trial: Trial, directory: Path, selection: Selection, recorder: Recorder) -> Record:
    settings, run, split = trial.resolved.settings, recorder.finished, recorder.reward_split
    policy = trial.resolved.policy
    assert run is not None
    recorder.write(directory / "traces" / f"{trial.id}.parquet", trial.id)
    runs = [*recorder.before, run]
    for finished in runs:
        finished.observe()  # as an environment does for its last observation; a student of a population has not done it yet
    data, task = run.data, trial.resolved.task
    bank, diverged = data.bank, bool(run.diverged[0])
    return {
        "trial": trial.id,
        "suite": trial.suite,
        "task": task.name,
        "policy": policy.name,
        "access": effective_access(policy.access, settings),
        "seed": trial.seed,
        "student": settings.distillation.student,
        "teachers": list(selection.pool.names),
        "pool": selection.pool.name,
        "updates": settings.distillation.updates,
        "metric": task.metric,
        "test": None if diverged or not trial.test else evaluate_on_test(task, run),
        "validation": None if diverged else recorder.curve[-1]["validation"],
        "reward_split": None if diverged else float(run.student.evaluate(*split.at(split.positions[0]))[1][0]),
        "reward_labels": split.num_labels,
        "reward_sum": recorder.reward_sum,
        "selection_rate": recorder.selection_rate,
        "selection_entropy": recorder.selection_entropy,
        "weight_entropy": recorder.weight_entropy,
        "student_forward_examples": settings.distillation.num_students * sum(int(finished.state.forward_examples[0]) for finished in runs),
        "reward_forward_examples": settings.distillation.num_students * recorder.reward_forward_examples,
        "teacher_forward_examples": len(heads.group_by_network(selection.pool.teachers)) * sum(bank.size(split) for split in data.inputs)
        + settings.distillation.num_students * sum(int(finished.answers.forward_examples(finished.update + 1)[0]) for finished in runs),
        "wall_s": 0.0,
        "peak_rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10), 1),
        "device": str(run.student.device),
        "versions": {**versions(), "processor": processor()},
        "config": trial.config,
        "bank": bank.fingerprint,
        "test_split": task.test_fingerprint if trial.test else "",
        "env": {
            "id": policy.environment,
            "num_envs": selection.num_slots // selection.num_students * settings.distillation.num_students,
            **trial.resolved.env_keywords,
        },
        "curve": recorder.curve,
        "diverged": diverged,
    }


def evaluate_on_test(task: tasks.Task, run: Distillation) -> float:
    """Return the metric of a finished run's student on the test split."""
    assert task.test is not None
    return float(run.student.evaluate(run.data.read(task.test.inputs), torch.from_numpy(task.test.labels))[1][0])
