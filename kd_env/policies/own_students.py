"""Give a policy students of its own, with which it tries decisions. In: decisions. Out: scores on reward examples.

They start with equal weights and see the same mini-batches. They do not affect the student that the policy teaches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from kd_env import spec
from kd_env.distillation import Distillation
from kd_env.envs import decisions
from kd_env.envs.selection import Selection
from kd_env.errors import InputError
from kd_env.policies.access import ALLOWED, GRADIENT, require_no_gradient
from kd_env.policies.batch import PolicyBatch
from kd_env.policies.positions import granted_positions
from kd_env.student.population import refuse_unbatched_layers
from kd_env.types import Decision


def require_own_students(selection: Selection, name: str) -> None:
    """Check that a policy can teach several students like that of ``selection`` at once.

    Args:
        name: name of the policy, for errors.

    Raises:
        InputError: the knowledge types compare peers, or the student has layers that cannot be run in a population, such as BatchNorm.
    """
    run = selection.distillation
    if run.loss.uses_peers:
        raise InputError(
            f"knowledge={run.settings.knowledge!r}: policy {name!r} teaches students of its own, which would become peers; leave the "
            "types that compare peers out"
        )
    try:
        refuse_unbatched_layers(run.student.network)
    except InputError as error:
        raise InputError(f"policy {name!r} teaches several students of its own at once; use another policy, since {error}") from None


class OwnStudents:
    """S students that are taught in one batched step. Their forward passes are counted as passes of the policy's student."""

    def __init__(
        self,
        selection: Selection,
        name: str,
        access: str,
        count: int,
        seed: int,
        taught_positions: np.ndarray,
        granted: np.ndarray,
        student: int | None = None,
    ) -> None:
        """Start ``count`` students, all from ``seed``, which decides their weights and the order of their examples.

        Args:
            selection: the student that the policy teaches.
            name: name of the policy, for errors.
            access: its access class.
            count: number of students S, at least 2.
            seed: seed of the students.
            taught_positions: positions in the reward split whose labels the setting ``reward_ce`` teaches each student, ``[S, n]``.
            granted: positions in the reward split whose labels the policy has.
            student: number of the policy's student in a population, which is charged with their forward passes; ``None`` for a lone one.
        """
        spec.numbers(f"policy {name!r}, own_students", least=2, whole=True, count=count)
        require_own_students(selection, name)
        run = selection.distillation
        self._selection, self._name, self._access, self._granted = selection, name, access, granted
        self._student = 0 if student is None else student
        positions = granted_positions(taught_positions, granted, name, "own_students")
        if positions.ndim != 2 or len(positions) != count or positions.shape[1] == 0:
            raise InputError(f"policy {name!r}: own_students: taught_positions has shape {positions.shape}, expected ({count}, n)")
        split = run.reward_split.with_positions(positions)
        if (temperatures := run.teacher_temperatures) is not None:  # the teachers are those of the policy's student
            split.teacher_temperatures = np.repeat(temperatures[self._student][None], count, axis=0)
        try:
            self._run = Distillation(run.data, replace(run.settings, num_students=count), [seed] * count, split)
        except InputError as error:
            raise InputError(f"policy {name!r} teaches {count} students of its own at once; use another policy, since {error}") from None
        self._counted = 0  # forward passes that the policy's student has been charged with

    @property
    def count(self) -> int:
        """Number of students S."""
        return self._run.num_students

    def batch(self, students: Sequence[int]) -> PolicyBatch:
        """Return the next mini-batches of some students: B rows for the first of them, then B for the second, and so on."""
        observed = self._run.observe()
        rows = observed.rows_of_students(students)
        output = self._run.student_output().map(lambda tensor: tensor[rows]) if GRADIENT in ALLOWED[self._access] else None
        return PolicyBatch(observed.of_students(students), output, self._access, self._name)

    def teach(self, decision: Decision) -> None:
        """Teach each student one mini-batch, except students that have diverged; ``decision`` is about ``S * B`` rows.

        Raises:
            InputError: the decision does not fit the setting, or carries a gradient that the access does not include.
        """
        require_no_gradient(self._name, self._access, decision)
        if not self._run.done.all():
            decisions.require_fits(self._run, decision)
            self._run.apply(decision)
        self._charge()

    def evaluate(self, positions: np.ndarray) -> np.ndarray:
        """Return the task's metric on reward examples at ``positions``, ``[S]``; minus infinity for students that have diverged.

        Raises:
            InputError: the policy does not have the labels of some examples.
        """
        positions = granted_positions(positions, self._granted, self._name, "evaluate")
        inputs, labels = self._run.reward_split.at(positions, self._run.student.device)
        loss, metric = self._run.student.evaluate(inputs, labels, shared=True)
        self._run.state.forward_examples += len(positions)
        self._charge()
        return np.where(self._run.diverged | ~np.isfinite(loss), -np.inf, metric)

    def continue_from(self, source: Sequence[int]) -> None:
        """Let each student s continue from the weights and the optimizer of student ``source[s]``. Call it before :meth:`batch`."""
        if self._run.batch is not None:
            raise InputError("own_students: call continue_from() before batch(); its mini-batches already belong to the earlier weights")
        index, state = list(source), self._run.state
        self._run.student.load_state({name: tensor[index] for name, tensor in self._run.student.state().items()})
        self._run.state = replace(state, update=state.update[index], diverged=state.diverged[index])

    def state(self) -> dict[str, Any]:
        """Return the state of the students."""
        return {"tensors": self._run.tensors(), "info": self._run.info(), "counted": self._counted}

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from what :meth:`state` returned."""
        self._run.load(state["tensors"], state["info"])
        self._counted = state["counted"]

    def _charge(self) -> None:
        """Add the forward passes since the last call to those of the policy's student."""
        passes = int(self._run.state.forward_examples.sum())
        self._selection.distillation.state.forward_examples[self._student] += passes - self._counted
        self._counted = passes
