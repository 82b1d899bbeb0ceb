"""A trial is driven. In: a :class:`~kd_env.benchmark.trial.Trial`. Out: its record and its trace.

``teach`` is the whole of driving a student; the rest makes the parts before and measures after. Test is opened here, after the student is
finished, and nowhere else.
"""

from __future__ import annotations

import platform
import resource
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import gymnasium as gym
import torch

from kd_env import tasks
from kd_env.benchmark.lockstep import Lockstep
from kd_env.benchmark.recorder import Recorder
from kd_env.benchmark.records import Record
from kd_env.benchmark.trial import Trial
from kd_env.distillation import Distillation
from kd_env.envs.selection import Selection
from kd_env.errors import InputError
from kd_env.policies import registry
from kd_env.policies.registry import PolicyClass
from kd_env.teachers import heads

Report = Callable[[int, float | None], None]
"""Called with the updates done since the last call, and validation where it was measured."""


def teach(env: Any, policy: Any, updates: int, seed: int) -> None:
    """Drive one student through its budget: a learner learns as it goes, a rule acts.

    ``policy`` may be an SB3 algorithm made on ``SB3VecEnv(env)``, too; its ``learn`` counts slot decisions.
    """
    if "stable_baselines3" in sys.modules and isinstance(policy, sys.modules["stable_baselines3"].common.base_class.BaseAlgorithm):
        policy.learn(updates * env.num_envs)
        return
    if callable(getattr(policy, "learn", None)):
        policy.learn(env, updates)
        return
    observation, _ = env.reset(seed=seed)
    for _ in range(updates):
        observation, _, terminated, _, _ = env.step(policy.act(observation))
        if terminated[0]:  # those after the first student, if any, are its peers
            return


def make_env(trial: Trial, trials: int = 1) -> Any:
    """The environment of a trial (or of several that differ in seed): a slot for each instance of a mini-batch, or for each mini-batch.

    It has one student a trial, or where the knowledge is that of peers the ``num_students`` that the trial says.
    """
    options, chosen = trial.env_options(), trial.chosen()
    per_instance, students = chosen.granularity == "instance", trials * chosen.num_students
    given = ("num_students", "batch_size") if per_instance else ("num_students",)
    return gym.make_vec(
        registry.find(trial.policy).environment,
        num_envs=students * (chosen.batch_size if per_instance else 1),
        num_students=students,
        vectorization_mode="vector_entry_point",
        autoreset_mode="same_step",
        **trial.sources(),
        **{name: value for name, value in options.items() if name not in given},
    ).unwrapped


def run_trial(trial: Trial, directory: Path, report: Report | None = None) -> Record:
    """Distil, evaluate and write the trace; the record is returned, not yet written.

    Raises:
        InputError: anything in the trial that cannot be used.
    """
    return run_trials([trial], directory, lambda _: report)[0]


def run_trials(
    trials: Sequence[Trial],
    directory: Path,
    report: Callable[[Trial], Report | None],
    keep: Callable[[Trial, Distillation], None] | None = None,
) -> list[Record]:
    """Trials that differ in their seeds alone, their students taught as one population, as :func:`run_trial` does one.

    Where students have peers, the first is the trial's.

    Args:
        keep: called with each trial and its finished run.

    Raises:
        InputError: several trials whose students have peers, or anything in them that cannot be used.
    """
    started = time.perf_counter()
    peers = trials[0].chosen().num_students - 1
    if peers and len(trials) > 1:
        raise InputError(f"population: a trial of policy {trials[0].policy!r} is a population already; run one at a time")
    env, found = make_env(trials[0], len(trials)), registry.find(trials[0].policy)
    selection: Selection = env.selection
    selection.label_seeds = [trial.chosen().label_seed for trial in trials for _ in range(1 + peers)]
    built: dict[int, Any] = {}
    recorders: dict[int, Recorder] = {}

    def drive(own: Any) -> None:
        number = own.number if len(trials) > 1 else 0
        policy = found.build(own, trials[number].seed)
        recorder = Recorder(selection, report(trials[number]), number, getattr(policy, "training_episodes", 0), peers)
        built[number], recorders[number] = policy, recorder
        selection.listeners.append(recorder)
        teach(own, policy, selection.settings.updates, trials[number].seed)
        if recorder.finished is None:
            raise InputError(
                f"policy {found.name!r}: its learn() stopped before {selection.settings.updates} updates; it must drive env that long"
            )

    if len(trials) == 1:
        drive(env)
    else:
        Lockstep(env, [trial.seed for trial in trials]).run([drive] * len(trials))
    wall = (time.perf_counter() - started) / len(trials)
    records = []
    for number, trial in enumerate(trials):
        started = time.perf_counter()
        made = _record(trial, directory, found, getattr(built[number], "access", found.access), selection, recorders[number])
        made["wall_s"] = round(wall + time.perf_counter() - started, 3)
        if len(trials) > 1:
            made["config"]["population"] = len(trials)
        records.append(made)
        if keep is not None and (finished := recorders[number].finished) is not None:
            keep(trial, finished)
    return records


def _record(trial: Trial, directory: Path, found: PolicyClass, access: str, selection: Selection, recorder: Recorder) -> Record:
    setting, run = trial.chosen(), recorder.finished
    assert run is not None
    recorder.write(directory / "traces" / f"{trial.id}.parquet", trial.id)
    runs = [*recorder.before, run]
    for one in runs:
        one.observe()  # as an environment does for its last observation; of a population's student that was not yet done
    data, task = run.data, tasks.load(trial.task)
    bank, diverged = data.bank, bool(run.diverged[0])
    return {
        "trial": trial.id,
        "suite": trial.suite,
        "task": task.name,
        "policy": found.name,
        "access": registry.effective_access(access, setting),
        "seed": trial.seed,
        "student": setting.student,
        "teachers": list(selection.pool.names),
        "pool": selection.pool.name,
        "updates": setting.updates,
        "metric": task.metric,
        "test": None if diverged or not trial.test else evaluate_on_test(task, run),
        "validation": None if diverged else recorder.curve[-1]["validation"],
        "reward_split": None if diverged else float(run.student.evaluate(*run.meter.at(run.meter.rows[0]))[1][0]),
        "reward_labels": run.meter.rows.shape[1],
        "reward_sum": recorder.reward_sum,
        "selection_rate": recorder.selection_rate,
        "selection_entropy": recorder.selection_entropy,
        "student_forward_examples": setting.num_students * sum(int(one.student_forward_examples[0]) for one in runs),
        "reward_forward_examples": setting.num_students * sum(int(one.meter.forward_examples[0]) for one in runs),
        "teacher_forward_examples": len(heads.group_by_network(selection.pool.teachers)) * sum(bank.size(split) for split in data.inputs),
        "wall_s": 0.0,
        "peak_rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10), 1),
        "device": str(run.student.device),
        "versions": versions(),
        "config": {**trial.settings, **trial.untested(), "command": trial.command},
        "bank": bank.fingerprint,
        "env": {
            "id": found.environment,
            "num_envs": selection.rows // selection.num_students * setting.num_students,
            **trial.sources(),
            **trial.env_options(),
        },
        "curve": recorder.curve,
        "diverged": diverged,
    }


def evaluate_on_test(task: tasks.Task, run: Distillation) -> float:
    """Metric of a finished run's student on the test split."""
    assert task.test is not None
    return float(run.student.evaluate(run.data.read(task.test.inputs), torch.from_numpy(task.test.labels))[1][0])


def versions() -> dict[str, str]:
    """Of what decides a number."""
    names = ("kd-env", "torch", "numpy", "gymnasium", "stable-baselines3", "transformers")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}
