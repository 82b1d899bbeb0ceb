"""Save a trial while it runs, so that a run that was stopped does not do work twice.

In: the environment, policies and recorders of a trial, or of several that run as one population. Out: a file in ``DIR/checkpoints``, from
which the same trial carries on; on CPU it ends in the same record, trace and weights, bit for bit. The file holds the environment's
snapshot after all the rest, each with its checksum.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from kd_env import randomness
from kd_env.benchmark.recorder import Recorder
from kd_env.benchmark.trial import Trial
from kd_env.envs.selection_snapshot import identity
from kd_env.errors import InputError
from kd_env.interrupts import MINUTES, SaveTimes
from kd_env.paths import naming, write_bytes
from kd_env.policies.context import PolicyContext
from kd_env.policies.episode import Between, Position
from kd_env.policies.policy_state import has_state, state_of, with_state
from kd_env.serialization import from_bytes, pack, to_bytes, unpack
from kd_env.types import Decision

FOLDER = "checkpoints"


@dataclass(frozen=True)
class Checkpoints:
    """How the trials of a results folder are saved.

    Attributes:
        directory: the results folder.
        minutes: time between two checkpoints.
        say: prints a line for the user.
    """

    directory: Path
    minutes: float = MINUTES
    say: Callable[[str], None] = print

    def remove(self, trial: Trial) -> None:
        """Delete the checkpoints of a finished trial."""
        for path in (self.directory / FOLDER).glob(f"{trial.id}*.checkpoint"):
            path.unlink(missing_ok=True)


class Checkpoint:
    """The checkpoint of the trials that run in one environment."""

    def __init__(self, checkpoints: Checkpoints, trials: Sequence[Trial], env: Any, versions: Mapping[str, str]) -> None:
        """Read the file, if there is one. A file that is damaged, or of other settings or versions, is renamed, and the user is told.

        Args:
            checkpoints: where and how often.
            trials: the trials that run in ``env``.
            env: their environment.
            versions: versions of the packages that results depend on.

        Raises:
            OSError: the file cannot be read at the moment.
        """
        others = f"+{len(trials) - 1}" if len(trials) > 1 else ""
        self._file = checkpoints.directory / FOLDER / f"{trials[0].id}{others}.checkpoint"
        self._settings, self._trials, self._env = checkpoints, trials, env
        run = env.selection.distillation
        self._env_identity = identity(run, env.selection.settings)
        self._identity = {"trials": [trial.id for trial in trials], "versions": dict(versions), "bank": run.data.bank.fingerprint}
        self._content: dict[str, Any] = {}
        self._snapshot = b""
        self._policies: Sequence[Any] = ()
        self._recorders: Sequence[Recorder] = ()
        self._started, self._times = time.monotonic(), SaveTimes(checkpoints.minutes)
        self._read()

    @property
    def elapsed(self) -> float:
        """Seconds that the trials have run, in this process and in earlier ones."""
        return float(self._content.get("elapsed", 0.0)) + time.monotonic() - self._started

    def restored(self, policies: Sequence[Any]) -> list[Any]:
        """Return new ``policies`` in the state that they had; without a checkpoint, as they are."""
        if not self._content:
            return list(policies)
        restored = []
        for number, (trial, policy, state) in enumerate(zip(self._trials, policies, self._content["policies"], strict=True)):
            kind = trial.resolved.policy
            context = PolicyContext(self._env, kind.name, kind.access, number if len(self._trials) > 1 else None)
            restored.append(with_state(policy, state, context, self._file.parent))
        return restored

    def watch(self, policies: Sequence[Any], recorders: Sequence[Recorder]) -> None:
        """Save these from now on. With a checkpoint, the environment and new ``recorders`` return to the state that they had."""
        self._policies, self._recorders = policies, recorders
        if not self._content:
            return
        self._observation = self._env.restore(self._snapshot)
        self._snapshot = b""
        for recorder, state in zip(recorders, self._content["recorders"], strict=True):
            recorder.load_state(state)
        self._env.np_random.bit_generator.state = self._content["slots"]
        _set_generators(self._content["generators"], self._env)
        update, updates = int(self._env.distillation.update.max()), self._env.distillation.settings.updates
        seeds = ", ".join(str(trial.seed) for trial in self._trials)
        several = "s" * (len(self._trials) > 1)
        self._settings.say(f"{self._trials[0].policy} seed{several} {seeds}: resumed at update {update} of {updates}")

    def first_episode(self, episode: int) -> int:
        """Return the episode to go on with, by default ``episode``; they are counted down."""
        return int(self._content.get("episode", episode))

    def start(self, episode: int) -> Position | None:
        """Return where the episode goes on, or ``None`` at its beginning."""
        if not self._content or episode != self._content["episode"]:
            return None
        actions = [Decision(*action) if isinstance(action, tuple) else action for action in self._content["actions"]]
        return Position(self._observation, self._content["over"], actions)

    def between(self, episode: int) -> Between | None:
        """Return what the loop calls between two updates: it saves when it is time, and ends the run after Ctrl-C or SIGTERM."""
        if not all(has_state(policy) for policy in self._policies):
            return None

        return lambda position: self._times.check(lambda: self._try_to_save(episode, position))

    def _try_to_save(self, episode: int, position: Position) -> None:
        """Save; if the disk is full or fails, tell the user and go on, since the trial may still end well."""
        try:
            self._save(episode, position)
        except OSError as error:
            self._settings.say(f"checkpoint {error.filename}: {error.strerror}; it is not saved, and the trial goes on")

    def _save(self, episode: int, position: Position) -> None:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        content = {
            "episode": episode,
            "over": position.over,
            "actions": [_fields(action) if isinstance(action, Decision) else action for action in position.actions],
            "policies": [state_of(policy, self._file.parent) for policy in self._policies],
            "recorders": [recorder.state() for recorder in self._recorders],
            "slots": self._env.np_random.bit_generator.state,
            "generators": _generators(self._env),
            "elapsed": self.elapsed,
        }
        tensors: dict[str, Tensor] = {}
        head = to_bytes(tensors, {"content": pack(content, tensors), "identity": self._identity})
        write_bytes(self._file, len(head).to_bytes(8), head, self._env.snapshot())

    def _read(self) -> None:
        try:
            with naming(self._file):
                data = self._file.read_bytes()
        except FileNotFoundError:
            return
        end = 8 + int.from_bytes(data[:8])
        head, snapshot = data[8:end], data[end:]
        aside = self._file.with_suffix(".set-aside")
        try:
            place, fix = f"checkpoint {self._file}", "it cannot be used"
            tensors, state = from_bytes(head, self._identity, place, fix)
            from_bytes(snapshot, self._env_identity, place, fix)
        except InputError as error:
            self._file.replace(aside)
            self._settings.say(f"{error}; it is now {aside.name}, and the trial starts over")
            return
        self._content, self._snapshot = unpack(state["content"], tensors), snapshot


def _fields(decision: Decision) -> tuple[Any, ...]:
    return dict(decision.weights), dict(decision.strengths), decision.temperature, decision.penalty


def _generators(env: Any) -> dict[str, Any]:
    """Return the states of the global generators, which a policy of one's own may draw from."""
    torch_states = randomness.states(env.distillation.student.device)
    return {"torch": torch_states, "numpy": np.random.get_state(legacy=False), "python": random.getstate()}  # noqa: NPY002


def _set_generators(states: Mapping[str, Any], env: Any) -> None:
    randomness.set_states(states["torch"], env.distillation.student.device)
    np.random.set_state(states["numpy"])  # noqa: NPY002
    random.setstate(states["python"])
