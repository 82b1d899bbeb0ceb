"""Make a Minari dataset, the format of offline reinforcement learning, from records. In: records. Out: a dataset of their episodes.

A trace has no observations, so the trial of a record runs again, as in :mod:`kd_env.benchmark.rerun`, while all that the policy observes,
does and gets is kept. Each slot is an episode: the decisions about one place in the mini-batches of one student.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from gymnasium.vector import VectorEnv, VectorWrapper

from kd_env.benchmark.records import Record
from kd_env.benchmark.rerun import trial_of
from kd_env.benchmark.run_trial import EPISODE_SEEDS, make_env, policy_of, teach
from kd_env.envs.selection import Selection
from kd_env.errors import InputError
from kd_env.randomness import reproducible
from kd_env.types import Decision, Observation


class Episodes(NamedTuple):
    """All that the policy observes, does and gets while one student is taught for T steps. Arrays are ``[T, slots, ...]``."""

    observations: Observation  # [T + 1, slots, F]
    actions: np.ndarray
    rewards: np.ndarray
    terminations: np.ndarray
    truncations: np.ndarray
    infos: dict[str, np.ndarray]  # [T + 1, slots, ...]; the first is the reset's; NaN stands for what was not measured


class RecordingEnv(VectorWrapper[Any, Any, Any, Any, Any]):
    """Keeps the episodes of the first student of an environment with ``autoreset_mode="same_step"``; the others are its peers."""

    def __init__(self, env: VectorEnv[Any, Any, Any]) -> None:
        """Start without students."""
        super().__init__(env)
        self.students: list[Episodes] = []
        self.slots = self.num_envs // self.selection.num_students

    @property
    def selection(self) -> Selection:
        """The selection of the environment."""
        unwrapped: Any = self.env.unwrapped
        selection: Selection = unwrapped.selection
        return selection

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start new students."""
        observation, info = self.env.reset(seed=seed, options=options)
        self._begin(observation, info)
        return observation, info

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Teach, and keep what happened.

        Raises:
            InputError: the action is a whole decision, which is not in the action space.
        """
        if isinstance(actions, Decision):
            raise InputError("it returns whole decisions, which are not in the action space; leave this policy out")
        observation, rewards, terminated, truncated, info = step = self.env.step(actions)
        space, own = self.single_action_space, slice(self.slots)
        ended = bool(terminated[0] | truncated[0])
        self._actions.append(np.reshape(actions, (self.num_envs, *(space.shape or ()))).astype(space.dtype)[own])
        self._results.append((rewards[own].copy(), terminated[own].copy(), truncated[own].copy()))
        after = {name: np.stack([final[name] for final in info["final_obs"][own]]) for name in observation} if ended else observation
        self._observations.append({name: block[own].copy() for name, block in after.items()})
        self._infos.append(self._own(info["final_info"] if ended else info))
        if ended:
            self.students.append(self._finished())
            self._begin(observation, info)
        return step

    def _begin(self, observation: Observation, info: dict[str, Any]) -> None:
        self._observations = [{name: block[: self.slots].copy() for name, block in observation.items()}]
        self._actions: list[np.ndarray] = []
        self._results: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        self._infos = [{"example_ids": info["example_ids"][: self.slots].copy()}]

    def _own(self, info: dict[str, Any]) -> dict[str, np.ndarray]:
        """Return what the first student's slots have in ``info``, without nesting."""
        own: dict[str, np.ndarray] = {}
        for name in [name for name in info if not name.startswith("_") and info[f"_{name}"][0]]:
            own |= self._own(info[name]) if isinstance(info[name], dict) else {name: info[name][: self.slots].copy()}
        return own

    def _finished(self) -> Episodes:
        blocks = {name: np.stack([step[name] for step in self._observations]) for name in self._observations[0]}
        names = {name: values for info in self._infos for name, values in info.items()}
        infos = {name: np.stack([info.get(name, _missing(values)) for info in self._infos]) for name, values in names.items()}
        rewards, terminations, truncations = (np.stack(values) for values in zip(*self._results, strict=True))
        return Episodes(blocks, np.stack(self._actions), rewards, terminations, truncations, infos)


def export(records: Sequence[Record], name: str, say: Callable[[str], None]) -> Path:
    """Run the trials of ``records`` again, write their episodes as the local Minari dataset ``name``, and return its folder.

    Args:
        say: called with a line for each trial, and one for each whose rewards are not those of its record.

    Raises:
        InputError: Minari is not installed or refuses the name; the records have different spaces; or a policy has no actions.
    """
    minari, buffer_class = _minari()
    _require_new(minari, name)
    observation_space, action_space = spaces = _spaces(records[0])
    by_setting = {(record["policy"], json.dumps({**record["env"], "label_seed": None})): record for record in records}  # one of all seeds
    for record in by_setting.values():
        if _spaces(record) != spaces:
            first, second = records[0]["policy"], record["policy"]
            raise InputError(f"policies {first!r} and {second!r} have different observations or actions; export them alone, with --policy")
    buffers: list[Any] = []
    metadata, checks = [], []
    for number, record in enumerate(records, 1):
        say(f"[{number}/{len(records)}] {record['trial']}: running the trial again")
        students = rollout(record)
        checks.append((record, len(buffers) + sum(student.rewards.shape[1] for student in students[:-1])))
        of_record = {key: record[key] for key in ("trial", "policy", "task", "pool")}
        for position, student in enumerate(students):
            later = len(students) - 1 - position  # students that the policy taught after this one
            for slot in range(student.rewards.shape[1]):
                buffers.append(_episode(buffer_class, student, slot, record["seed"] + EPISODE_SEEDS * later))
                metadata.append({**of_record, "student": position, "recorded": later == 0, "slot": slot})
    policies = ", ".join(dict.fromkeys(record["policy"] for record in records))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that there is no author, no permalink and no environment to recover
        dataset = minari.create_dataset_from_buffers(
            name,
            buffers,
            observation_space=observation_space,
            action_space=action_space,
            algorithm_name=policies,
            description=f"Decisions of {policies}; each episode is a slot of gymnasium.make_vec(**{json.dumps(records[0]['env'])})",
            data_format="arrow",
        )
    dataset.storage.update_episode_metadata(metadata, range(len(metadata)))
    written = minari.load_dataset(name)
    for record, start in checks:
        _compare(written, record, start, say)
    return Path(dataset.storage.data_path)


def rollout(record: Record) -> list[Episodes]:
    """Run the trial of a record again; return its student, after those on which the policy learned before.

    Raises:
        InputError: the policy returns whole decisions, or a task, pool or policy no longer exists.
    """
    trial = trial_of(record)
    with reproducible():
        env = RecordingEnv(make_env(trial))
        env.selection.use_label_seeds([trial.resolved.settings.reward.label_seed] * env.selection.num_students)
        policy = policy_of(trial, env)
        before = 0 if trial.frozen else getattr(policy, "training_episodes", 0)
        try:
            teach(env, [policy], [trial.seed], trial.frozen)
        except InputError as error:
            raise InputError(f"policy {record['policy']!r}: {error}") from None
    return env.students[: before + 1]


def _spaces(record: Record) -> tuple[Any, Any]:
    env = make_env(trial_of(record))
    return env.single_observation_space, env.single_action_space


def _episode(buffer_class: Any, student: Episodes, slot: int, seed: int) -> Any:
    infos = {name: values[:, slot] for name, values in student.infos.items()}
    return buffer_class(
        seed=seed,
        observations={name: block[:, slot] for name, block in student.observations.items()},
        actions=student.actions[:, slot],
        rewards=student.rewards[:, slot],
        terminations=student.terminations[:, slot],
        truncations=student.truncations[:, slot],
        infos={name: values.tolist() if values.ndim == 1 else values for name, values in infos.items()},  # Minari reads back no 1-D array
    )


def _compare(dataset: Any, record: Record, start: int, say: Callable[[str], None]) -> None:
    """Read the rewards of a record's student, whose episodes begin at ``start``, and say if they are not those of the record."""
    slots_per_student = record["env"]["num_envs"] // (record["env"].get("num_students") or 1)
    episodes = dataset.iterate_episodes(range(start, start + slots_per_student))
    total = sum(row.mean() for row in np.stack([episode.rewards for episode in episodes], 1))
    if not np.isclose(total, record["reward_sum"], rtol=1e-6, atol=1e-9):
        say(
            f"{record['trial']}: the rewards sum to {total:.6g} here and to {record['reward_sum']:.6g} in the record; "
            "it was made on another kind of processor, with other versions of the packages, or in a population"
        )


def _missing(values: np.ndarray) -> np.ndarray:
    """Return what stands for values that a step does not have: NaN, or 0 for whole numbers and booleans."""
    return np.full_like(values, np.nan if values.dtype.kind == "f" else 0)


def _minari() -> tuple[Any, Any]:
    try:
        import minari
        from minari.data_collector import EpisodeBuffer
    except ImportError as error:
        raise InputError(f"export-minari needs the package minari ({error}); pip install 'kd-env[minari]'") from None
    return minari, EpisodeBuffer


def _require_new(minari: Any, name: str) -> None:
    from minari.dataset.minari_dataset import parse_dataset_id

    try:
        parse_dataset_id(name)
    except ValueError as error:
        raise InputError(f"--out {name!r}: {error}") from None
    except TypeError:  # Minari's, for a name without a version
        raise InputError(f"--out {name!r}: the name has no version; end it with one, as {name}-v0") from None
    if name in minari.list_local_datasets():
        raise InputError(f"--out {name!r}: this dataset exists; take another name, or delete it with minari delete {name}")
