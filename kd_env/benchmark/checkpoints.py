"""Save a trial while it runs, so that it can be resumed after a stop.

In: the environment, policies and recorders of a trial, or of several that run as one population. Out: a file in ``DIR/checkpoints``. A
resumed trial ends with the same record, trace and weights, on CPU bit for bit. The file contains the state of policies and recorders,
then the snapshot of the environment, each with a checksum.
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
from kd_env.interrupts import CHECKPOINT_MINUTES, SaveSchedule
from kd_env.paths import naming, write_bytes
from kd_env.policies.context import PolicyContext
from kd_env.policies.episode import AfterUpdate, EpisodeState
from kd_env.policies.policy_state import has_state, state_of, with_state
from kd_env.serialization import from_bytes, pack, to_bytes, unpack
from kd_env.types import Decision

FOLDER = "checkpoints"


@dataclass(frozen=True)
class CheckpointSettings:
    """Where and how often the trials of a results folder are saved.

    Attributes:
        directory: the results folder.
        minutes: minutes between two checkpoints.
        say: prints a line for the user.
    """

    directory: Path
    minutes: float = CHECKPOINT_MINUTES
    say: Callable[[str], None] = print

    def remove(self, trial: Trial) -> None:
        """Delete the checkpoints of a finished trial."""
        for path in (self.directory / FOLDER).glob(f"{trial.id}*.checkpoint"):
            path.unlink(missing_ok=True)


class Checkpoint:
    """The checkpoint of a trial, or of the trials of one population."""

    def __init__(self, checkpoints: CheckpointSettings, trials: Sequence[Trial], env: Any, versions: Mapping[str, str]) -> None:
        """Read the file if it exists. Rename it, with a message, if it is damaged or belongs to other settings or versions.

        Args:
            checkpoints: where and how often to save.
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
        self._started, self._schedule = time.monotonic(), SaveSchedule(checkpoints.minutes)
        self._read()

    @property
    def elapsed(self) -> float:
        """Seconds that the trials have run, in this process and in earlier ones."""
        return float(self._content.get("elapsed", 0.0)) + time.monotonic() - self._started

    def restore_policies(self, policies: Sequence[Any]) -> list[Any]:
        """Return the policies in their saved state; without a checkpoint, return them unchanged."""
        if not self._content:
            return list(policies)
        restored = []
        for number, (trial, policy, state) in enumerate(zip(self._trials, policies, self._content["policies"], strict=True)):
            policy_class = trial.resolved.policy
            context = PolicyContext(self._env, policy_class.name, policy_class.access, number if len(self._trials) > 1 else None)
            restored.append(with_state(policy, state, context, self._file.parent))
        return restored

    def attach(self, policies: Sequence[Any], recorders: Sequence[Recorder]) -> None:
        """Set the policies and recorders to save. With a checkpoint, restore the environment and the recorders."""
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
        plural = "s" * (len(self._trials) > 1)
        self._settings.say(f"{self._trials[0].policy} seed{plural} {seeds}: resumed at update {update} of {updates}")

    def first_episode(self, episode: int) -> int:
        """Return the number of the episode to resume; without a checkpoint, ``episode``. Episodes are counted down."""
        return int(self._content.get("episode", episode))

    def episode_state(self, episode: int) -> EpisodeState | None:
        """Return the saved state of an episode, or ``None`` if the episode is new."""
        if not self._content or episode != self._content["episode"]:
            return None
        actions = [Decision(*action) if isinstance(action, tuple) else action for action in self._content["actions"]]
        return EpisodeState(self._observation, self._content["over"], actions)

    def after_update(self, episode: int) -> AfterUpdate | None:
        """Return a callback that saves the trial if it is due, and ends the run after Ctrl-C or SIGTERM.

        ``None`` if the state of a policy cannot be saved.
        """
        if not all(has_state(policy) for policy in self._policies):
            return None
        return lambda state: self._schedule.save_if_due(lambda: self._try_to_save(episode, state))

    def _try_to_save(self, episode: int, state: EpisodeState) -> None:
        """Save the trial. If that fails, print a message and continue: the trial does not need its checkpoint to finish."""
        try:
            self._save(episode, state)
        except InputError as error:
            self._settings.say(f"{error}. The checkpoint is not saved, and the trial continues")
        except OSError as error:
            self._settings.say(f"checkpoint {error.filename}: {error.strerror}; the checkpoint is not saved, and the trial continues")

    def _save(self, episode: int, state: EpisodeState) -> None:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        content = {
            "episode": episode,
            "over": state.over,
            "actions": [_fields(action) if isinstance(action, Decision) else action for action in state.actions],
            "policies": [state_of(policy, self._file.parent) for policy in self._policies],
            "recorders": [recorder.state() for recorder in self._recorders],
            "slots": self._env.np_random.bit_generator.state,
            "generators": _generators(self._env),
            "elapsed": self.elapsed,
        }
        tensors: dict[str, Tensor] = {}
        try:
            head = to_bytes(tensors, {"content": pack(content, tensors), "identity": self._identity})
        except (TypeError, ValueError, RecursionError) as error:
            expected = "return dicts, lists and tuples of tensors, arrays, numbers and text"
            raise InputError(f"policy {self._trials[0].policy!r}: state() cannot be saved ({error}); {expected}") from None
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
    """Return the states of the global random generators, which a policy of the user may draw from."""
    torch_states = randomness.states(env.distillation.student.device)
    return {"torch": torch_states, "numpy": np.random.get_state(legacy=False), "python": random.getstate()}  # noqa: NPY002


def _set_generators(states: Mapping[str, Any], env: Any) -> None:
    randomness.set_states(states["torch"], env.distillation.student.device)
    np.random.set_state(states["numpy"])  # noqa: NPY002
    random.setstate(states["python"])
