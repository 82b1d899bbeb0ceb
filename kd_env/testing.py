"""Checks for plug-ins: a policy, a task, a knowledge type. In: the class or function. Out: nothing, or an error that says how to fix it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from torch import Tensor

from kd_env.benchmark.run_trial import teach
from kd_env.benchmark.suite_checks import check_pool, check_student
from kd_env.benchmark.trial import default_options
from kd_env.benchmark.tuning.space import declared_space
from kd_env.envs.settings import settings
from kd_env.errors import InputError
from kd_env.knowledge.check import check_knowledge
from kd_env.policies.context import PolicyContext
from kd_env.policies.policy_state import state_of, with_state
from kd_env.policies.registry import PolicyClass, declared
from kd_env.serialization import pack, unpack
from kd_env.tasks import Task
from kd_env.tasks.task import SPLITS
from kd_env.types import Decision

__all__ = ["check_knowledge", "check_policy", "check_task"]

UPDATES = 4


def check_policy(policy: Any, **options: Any) -> None:
    """Teach small students with ``policy`` and check that it follows the protocol.

    Args:
        policy: the class.
        options: its options.

    Raises:
        InputError: it declares an access, env keywords or a search space that do not exist, reads what its access does not include, or has
            ``save`` without ``load`` or ``state`` without ``load_state``.
        AssertionError: its actions are not in the space, equal seeds give different students, its student is not finished, a loaded policy
            returns actions of another shape, or a policy in a loaded ``state`` teaches another student than the policy that returned it.
    """
    name = getattr(policy, "__name__", str(policy))
    policy_class = declared(name, policy, options)
    declared_space(policy_class)
    students = []
    for _ in range(2):
        env = _environment(policy_class)
        agent = policy_class.build(env, 0)
        observation, _ = env.reset(seed=0)
        action = agent.act(observation)
        if not isinstance(action, Decision):  # ``step`` checks those
            action = np.asarray(action)
            assert env.action_space.contains(action.astype(env.action_space.dtype)), (
                f"{name}.act returned {action!r}, which is not in {env.action_space}"
            )
        teach(env, [policy_class.build(env, 0)], [0])
        assert env.finished is not None, f"{name}.learn(env, {UPDATES}) did not teach {UPDATES} mini-batches"
        students.append(env.finished.student.network.state_dict())
    for key, value in students[0].items():
        assert value.equal(students[1][key]), f"{name}: equal seeds gave different students; draw from a generator made from `seed`"
    for first, second in (("save", "load"), ("state", "load_state")):
        if callable(getattr(policy, first, None)) and not callable(getattr(policy, second, None)):
            raise InputError(f"{name} has {first}(), and no {second}(); add it, or leave both out")
    if callable(getattr(policy, "save", None)):
        _check_saved(name, policy, policy_class, agent)
    if callable(getattr(policy, "state", None)) and not policy_class.owns_loop:
        _check_state(name, policy_class)


def check_task(load: Callable[[], Task]) -> None:
    """Check that ``load`` returns the same valid task every time.

    Raises:
        InputError: ``load`` does not return a task, or its defaults are not settings, name a pool that does not exist or does not fit, or a
            student that does not exist or cannot be built for it.
        AssertionError: two calls differ, an input is in two splits, or groups do not match their names.
    """
    if not callable(load):
        raise InputError(
            f"check_task: expected a function that returns a Task, got a {type(load).__name__}; give the function, not its result"
        )
    task, again = load(), load()
    if not isinstance(task, Task):
        raise InputError(f"check_task: {getattr(load, '__name__', load)} returned a {type(task).__name__}; return a kd_env.tasks.Task")
    for name in ("fingerprint", "test_fingerprint"):
        assert getattr(task, name) == getattr(again, name), f"task {task.name!r}: two calls returned different content; seed what is random"
    settings(task)
    if task.defaults.pool:
        check_pool(task.defaults.pool, task)
    check_student(task.defaults.student, task)
    assert task.development().test is None
    split_of: dict[bytes, str] = {}
    for name in SPLITS:
        split = getattr(task, name)
        if split is None:
            continue
        for row in split.inputs:
            content = row.tobytes() if task.kind == "image" else str(row).encode()
            other = split_of.setdefault(content, name)
            assert other == name, f"task {task.name!r}: an input of {name!r} is also in {other!r}; keep equal inputs in one split"
        if split.groups is not None:
            known = len(task.group_names)
            least = -1 if task.unlabelled and name == "train" else 0
            assert split.groups.min() >= least, f"task {task.name!r}: groups of {name!r} are below 0"
            assert split.groups.max() < known, f"task {task.name!r}: groups of {name!r} exceed the {known} group_names"


def _environment(policy: PolicyClass) -> Any:
    options = {**default_options(policy.environment), **policy.env_options}
    make: dict[str, Any] = {"vectorization_mode": "vector_entry_point", "task": "digits", "updates": UPDATES, "autoreset_mode": "same_step"}
    slots = 8 if options.get("granularity", "instance") == "instance" else 1
    return gym.make_vec(policy.environment, num_envs=slots, **make, **options).unwrapped


def _check_saved(name: str, policy: Any, policy_class: PolicyClass, agent: Any) -> None:
    env = _environment(policy_class)
    observation, _ = env.reset(seed=1)
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "policy")
        agent.save(path)
        source = env if policy_class.owns_loop else PolicyContext(env, name, policy_class.access)
        again = policy.load(path, source)
    assert np.shape(again.act(observation)) == np.shape(agent.act(observation)), (
        f"{name}.load returned a policy whose actions have another shape"
    )


def _check_state(name: str, policy_class: PolicyClass) -> None:
    env = _environment(policy_class)
    agent, again = policy_class.build(env, 0), policy_class.build(env, 0)
    teach(env, [agent], [1])  # so that it learns
    with tempfile.TemporaryDirectory() as folder:
        tensors: dict[str, Tensor] = {}
        packed = pack(state_of(agent, Path(folder)), tensors)  # as in a checkpoint: a copy, of values that can be stored
        context = PolicyContext(env, name, policy_class.access)
        again = with_state(again, unpack(packed, tensors), context, Path(folder))
    weights = []
    for taught_by in (agent, again):
        teach(env, [taught_by], [2])
        weights.append(env.finished.student.network.state_dict())
    for key, value in weights[0].items():
        assert value.equal(weights[1][key]), (
            f"{name}: after load_state() it teaches another student; state() must hold all that changes, random generators too"
        )
