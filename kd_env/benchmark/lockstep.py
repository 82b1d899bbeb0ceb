"""Lockstep: policies that each drive a student of their own, made to step together as one population.

In: an environment of S students, and S functions that each drive what looks like an environment of one. Out: nothing; they have run. Each
function has a thread, but only one of them runs at a time: it holds the baton until it asks for a step (or a reset), and when all have
asked, the population takes that step. Global generators are swapped with the baton, so each function draws as it would alone.
"""

from __future__ import annotations

import copy
import random
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from kd_env.envs.decisions import together
from kd_env.envs.slots import SlotsEnv
from kd_env.errors import InputError
from kd_env.knowledge.terms import Term
from kd_env.types import Batch, Decision, ModelOutput, Observation


@dataclass(frozen=True)
class _Reset:
    """The wish to begin anew."""

    seed: int | None


class Lockstep:
    """Runs S drivers over one population."""

    def __init__(self, env: SlotsEnv, seeds: Sequence[int]) -> None:
        """Take a population environment; student s is begun from ``seeds[s]`` where its driver names no seed."""
        self.env, self.seeds = env, list(seeds)
        self.members = [Member(self, s) for s in range(env.num_students)]
        self._answers: list[Any] = [None] * env.num_students

    def run(self, drivers: Sequence[Callable[[Any], None]]) -> None:
        """Let ``drivers[s]`` drive ``members[s]``; an error in one of them stops all and is raised here."""
        batons = [_Baton(member, driver) for member, driver in zip(self.members, drivers, strict=True)]
        try:
            while running := [baton for baton in batons if not baton.finished]:
                for baton in running:
                    baton.hand_over(self._answers[baton.member.number])
                wants = {baton.member.number: baton.wish for baton in running if not baton.finished}
                if wants:
                    self._serve(wants)
        finally:
            for baton in batons:
                baton.stop()

    def _serve(self, wants: dict[int, Any]) -> None:
        """Do what all that still run have asked for: a reset, or a step with their actions."""
        resets = [number for number, wish in wants.items() if isinstance(wish, _Reset)]
        if resets and len(resets) < len(wants):
            raise InputError("population: some policies reset their environment where others step it; run them without --population")
        if resets:
            asked = {number: wish.seed for number, wish in wants.items()}
            seeds = [own if asked.get(number) is None else asked[number] for number, own in enumerate(self.seeds)]
            observation, info = self.env.reset(seed=np.repeat(seeds, self.env.num_envs // len(seeds)).tolist())
            for number in wants:
                self._answers[number] = self._part(observation, number), self._part(info, number)
            return
        one = next(iter(wants.values()))  # stands in for those who have stopped driving
        every = [wants.get(number, one) for number in range(len(self.seeds))]
        if isinstance(one, Decision):
            step = self.env.step(together(every, self.env.selection.settings.distillation.batch_size))
        else:
            step = self.env.step(np.concatenate(every))
        for number in wants:
            self._answers[number] = tuple(self._part(one, number) for one in step)

    def _part(self, value: Any, number: int) -> Any:
        """The slots of one student, of arrays and of dicts of them."""
        if isinstance(value, dict):
            return {name: self._part(one, number) for name, one in value.items()}
        slots = self.env.num_envs // len(self.seeds)
        return value[number * slots : (number + 1) * slots]


class Member:
    """One student of a population as an environment of its own: what a driver and its policy see."""

    def __init__(self, lockstep: Lockstep, number: int) -> None:
        """Take over what all students share."""
        env = lockstep.env
        self.number, self.num_envs = number, env.num_envs // env.num_students
        self.metadata, self.autoreset_mode, self.render_mode = env.metadata, env.autoreset_mode, None
        spaces = env.single_observation_space, env.single_action_space
        self.single_observation_space, self.single_action_space = copy.deepcopy(spaces)  # libraries seed them and draw from them
        self.selection = MemberSelection(env, number)
        self.unwrapped = self
        self.wish: Callable[[Any], Any] = _unasked

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Observation, dict[str, Any]]:
        """Begin anew, together with all others."""
        found: tuple[Observation, dict[str, Any]] = self.wish(_Reset(seed))
        return found

    def step(self, actions: np.ndarray | Decision) -> tuple[Observation, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Ask for a step; it is taken when all have asked."""
        found: tuple[Observation, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]] = self.wish(
            actions if isinstance(actions, Decision) else np.asarray(actions)
        )
        return found

    def close(self) -> None:
        """Nothing is held open."""


class MemberSelection:
    """What a policy may look at besides its observations: material, settings, and the mini-batch of its own student."""

    def __init__(self, env: SlotsEnv, number: int) -> None:
        """Settings are those of a lone student."""
        shared = env.selection
        self._shared, self._number = shared, number
        self.data, self.pool, self.layout, self.num_teachers = shared.data, shared.pool, shared.layout, shared.num_teachers
        own_labels = shared.settings.reward.label_seed if shared.label_seeds is None else shared.label_seeds[number]
        self.settings = replace(shared.settings, num_students=1, label_seed=own_labels)
        self.rows = shared.rows // shared.num_students

    @property
    def distillation(self) -> MemberSelection:
        """Itself: the run shows no more than :meth:`observe`."""
        return self

    def observe(self) -> Batch:
        """The features of the own student's mini-batch."""
        every, size = self._shared.distillation.observe(), self.settings.batch_size
        rows, own = slice(self._number * size, (self._number + 1) * size), slice(self._number, self._number + 1)
        return Batch(
            update=every.update[own],
            progress=every.progress[own],
            example_ids=every.example_ids[rows],
            labels=every.labels[rows],
            teacher_logits=every.teacher_logits[rows],
            teacher_features=tuple(one[rows] for one in every.teacher_features),
            student=ModelOutput(every.distillation.student.logits[rows], every.distillation.student.features[rows]),
            teacher_layers=tuple(one[rows] for one in every.teacher_layers),
            teacher_attention=tuple(one[rows] for one in every.teacher_attention),
        )

    @property
    def terms(self) -> dict[str, Term]:
        """The knowledge types of the setting."""
        return self._shared.distillation.terms

    @property
    def reads_labels(self) -> bool:
        """Whether training labels are part of the setting."""
        return self._shared.distillation.reads_labels

    def student_output(self) -> ModelOutput:
        """What the own student says of its mini-batch, differentiable."""
        every, size = self._shared.distillation.student_output(), self.settings.batch_size
        rows = slice(self._number * size, (self._number + 1) * size)
        return every.map(lambda part: part[rows])

    def __getattr__(self, name: str) -> Any:
        """What a lone run has and this has not."""
        raise InputError(f"population: the policy reaches for its run's {name!r}, which students taught together do not show; run it alone")


class _Baton:
    """One driver in its thread; it runs only between ``hand_over`` and its next wish."""

    def __init__(self, member: Member, driver: Callable[[Any], None]) -> None:
        self.member, self.finished, self.wish = member, False, None
        self._mine, self._back = threading.Semaphore(0), threading.Semaphore(0)
        self._answer: Any = None
        self._error: BaseException | None = None
        self._stopped = False
        self._states = _global_states()
        member.wish = self._ask
        self._thread = threading.Thread(target=self._run, args=(driver,), daemon=True)
        self._thread.start()

    def hand_over(self, answer: Any) -> None:
        """Let the driver run until it wishes something or ends."""
        outer, self._answer = _global_states(), answer
        _set_global_states(self._states)
        self._mine.release()
        self._back.acquire()
        self._states = _global_states()
        _set_global_states(outer)
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        """End a driver that still waits."""
        self._stopped = True
        self._mine.release()
        self._thread.join()

    def _ask(self, wish: Any) -> Any:
        self.wish = wish
        self._back.release()
        self._mine.acquire()
        if self._stopped:
            raise _StoppedError
        return self._answer

    def _run(self, driver: Callable[[Any], None]) -> None:
        self._mine.acquire()
        try:
            if not self._stopped:
                driver(self.member)
        except _StoppedError:
            pass
        except BaseException as error:  # it is raised again where the batons are handed over
            self._error = error
        self.finished = True
        self._back.release()


class _StoppedError(BaseException):
    """The run is over for a driver that waits."""


def _unasked(wish: Any) -> Any:
    raise AssertionError("a member acts only while its lockstep runs")


def _global_states() -> tuple[Any, ...]:
    return torch.get_rng_state(), np.random.get_state(), random.getstate()  # noqa: NPY002  (libraries draw from it)


def _set_global_states(states: tuple[Any, ...]) -> None:
    torch.set_rng_state(states[0])
    np.random.set_state(states[1])  # noqa: NPY002
    random.setstate(states[2])
