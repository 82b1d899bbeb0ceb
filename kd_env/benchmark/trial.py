"""One trial: a policy, a task, a seed. In: a :class:`Trial`. Out: its record and its trace.

``teach`` is the whole of driving a student; the rest makes the parts before and measures after. Test is opened here, after the student is
finished, and nowhere else.
"""

from __future__ import annotations

import platform
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import gymnasium as gym
import torch

from kd_env import tasks
from kd_env.benchmark import policies
from kd_env.benchmark.recorder import Recorder
from kd_env.benchmark.records import Record, trial_id
from kd_env.errors import InputError
from kd_env.settings import Settings
from kd_env.settings import settings as make_settings
from kd_env.student.encode import encode

Report = Callable[[int, float | None], None]
"""Called with the updates done since the last call, and validation where it was measured."""


@dataclass(frozen=True)
class Trial:
    """What a trial is; equal trials give equal records.

    Attributes:
        settings: env keywords the user set.
        command: how it was asked for; shown in the report, not part of the identity.
    """

    task: str
    policy: str
    seed: int
    teachers: str | None = None
    bank: str | None = None
    suite: str = "run"
    settings: dict[str, Any] = field(default_factory=dict)
    command: str = ""

    def env_options(self) -> dict[str, Any]:
        """Env keywords: what the policy needs, and what the user set.

        Raises:
            InputError: the two contradict each other, or the policy would read labels that the setting leaves out.
        """
        task, policy = tasks.load(self.task), policies.find(self.policy)
        setting = make_settings(task, **self.settings)
        for name in ("action", "granularity", "features"):
            needed = policy.env_options.get(name)
            if name in self.settings and needed not in (None, self.settings[name]):
                raise InputError(f"{name}={self.settings[name]}: policy {policy.name!r} needs {name}={needed}; leave {name} out")
        if setting.strength == 1.0 and policy.env_options.get("strength", 1.0) < 1.0:
            raise InputError(
                f"policy {policy.name!r} learns from hard labels, which are not part of this setting (strength=1); "
                "add --set strength=0.5, or leave it out"
            )
        if policy.env_options.get("reward_ce") and setting.reward_ce == 0.0 and "reward_ce" in self.settings:
            raise InputError(f"reward_ce=0: policy {policy.name!r} is the one that learns from it; give another strength or leave it out")
        own = {name: value for name, value in policy.env_options.items() if name == "strength"}
        return {"label_seed": self.seed, **policy.env_options, **self.settings, **own}

    def chosen(self) -> Settings:
        """The settings that all of this comes to."""
        return make_settings(tasks.load(self.task), **self.env_options())

    @property
    def id(self) -> str:
        """File-safe name, of all that decides the result but the code: policy, settings, the task's content, the pool's name, the seed."""
        task, chosen = tasks.load(self.task), self.chosen()
        pool, policy = self.teachers or task.defaults.pool, policies.find(self.policy).name
        config = {**asdict(chosen), "suite": self.suite, "content": task.fingerprint}
        return trial_id(self.task, pool, policy, chosen.student, chosen.updates, chosen.reward_labels, self.seed, config)


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
        if terminated.any():
            return


def make_env(trial: Trial) -> Any:
    """The environment of a trial, a slot for each instance of the mini-batch (one for the batch with ``granularity="batch"``)."""
    options = trial.env_options()
    per_instance = options.get("granularity", "instance") == "instance"
    slots = trial.chosen().batch_size if per_instance else 1
    return gym.make_vec(
        "kd_env/TeacherSelection-v0",
        num_envs=slots,
        vectorization_mode="vector_entry_point",
        task=trial.task,
        teachers=trial.teachers,
        bank=trial.bank,
        autoreset_mode="same_step",
        **{name: value for name, value in options.items() if name != "batch_size" or not per_instance},
    ).unwrapped


def run_trial(trial: Trial, directory: Path, report: Report | None = None) -> Record:
    """Distil, evaluate and write the trace; the record is returned, not yet written.

    Raises:
        InputError: anything in the trial that cannot be used.
    """
    started = time.perf_counter()
    env = make_env(trial)
    selection, setting = env.selection, env.selection.settings
    found = policies.find(trial.policy)
    recorder = Recorder(selection, report)
    policy = found.build(env, trial.seed)
    selection.listeners.append(recorder)
    teach(env, policy, setting.updates, trial.seed)
    run = recorder.finished
    if run is None:
        raise InputError(f"policy {found.name!r}: its learn() stopped before {setting.updates} updates; it must drive env that long")
    recorder.write(directory / "traces" / f"{trial.id}.parquet", trial.id)
    material, task = run.material, tasks.load(trial.task)
    reward_rows = {name: tensor[run.reward_rows] for name, tensor in material.inputs["reward"].items()}
    bank = material.bank
    return {
        "trial": trial.id,
        "suite": trial.suite,
        "task": task.name,
        "policy": found.name,
        "access": policies.effective_access(getattr(policy, "access", found.access), setting),
        "seed": trial.seed,
        "student": setting.student,
        "teachers": list(selection.pool.names),
        "pool": selection.pool.name,
        "updates": setting.updates,
        "metric": task.metric,
        "test": None if run.diverged else evaluate_on_test(task, run.student),
        "validation": None if run.diverged else run.validate()[1],
        "reward_split": None if run.diverged else run.student.evaluate(reward_rows, run.meter.labels)[1],
        "reward_labels": len(run.reward_rows),
        "reward_sum": recorder.reward_sum,
        "selection_rate": recorder.selection_rate,
        "selection_entropy": recorder.selection_entropy,
        "student_forward_examples": run.student_forward_examples,
        "reward_forward_examples": run.meter.forward_examples,
        "teacher_forward_examples": bank.num_teachers * sum(bank.size(split) for split in material.inputs),
        "wall_s": round(time.perf_counter() - started, 3),
        "peak_rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10), 1),
        "device": str(run.student.device),
        "versions": versions(),
        "config": {**trial.settings, "command": trial.command},
        "bank": bank.fingerprint,
        "env": {"task": trial.task, "teachers": trial.teachers, "bank": trial.bank, "num_envs": env.num_envs, **trial.env_options()},
        "curve": recorder.curve,
        "diverged": run.diverged,
    }


def evaluate_on_test(task: tasks.Task, student: Any) -> float:
    """Metric of a finished student on the test split."""
    assert task.test is not None
    score: float = student.evaluate(encode(task, task.test.inputs), torch.from_numpy(task.test.labels))[1]
    return score


def versions() -> dict[str, str]:
    """Of what decides a number."""
    names = ("kd-env", "torch", "numpy", "gymnasium", "stable-baselines3", "transformers")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}
