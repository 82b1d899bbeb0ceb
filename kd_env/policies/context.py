"""Give a policy the sizes of its problem, and the data that its access class includes."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from kd_env.distillation.reward_split import labelled_positions
from kd_env.envs import decisions
from kd_env.envs.selection import Selection
from kd_env.errors import InputError
from kd_env.policies.access import ALLOWED, GRADIENT, GROUPS, LABELS, REWARD, REWARD_LABELS, STUDENT, TEACHERS, Restricted, needs
from kd_env.policies.batch import PolicyBatch
from kd_env.policies.examples import Examples
from kd_env.policies.once_per_example import OfTeachers, OncePerExample
from kd_env.policies.own_credit import own_credit
from kd_env.policies.own_students import OwnStudents, require_own_students
from kd_env.policies.positions import granted_positions
from kd_env.policies.rehearsal import Rehearsal
from kd_env.policies.student_view import StudentView
from kd_env.teachers.best_teachers import known_best_teachers
from kd_env.teachers.teacher import classifiers
from kd_env.types import Decision


class PolicyContext(Restricted):
    """The information that a policy may use. Its attributes are for all policies; methods and properties need the access in ``@needs``.

    A method or property that the access class of the policy does not include raises an error that names it.
    """

    def __init__(self, env: Any, name: str, access: str, student: int | None = None) -> None:
        """Create the context of a policy that acts in ``env`` (vector form).

        Args:
            env: the environment.
            name: name of the policy, for errors.
            access: its access class.
            student: the student of a population that the policy teaches; by default it acts for all slots.
        """
        selection: Selection = env.unwrapped.selection
        data, pool, settings, run = selection.data, selection.pool, selection.settings, selection.distillation
        super().__init__(name, access)
        self._selection, self._student = selection, student
        self.num_envs: int = env.num_envs if student is None else env.num_envs // selection.num_students
        """Number of slots that the policy acts for, which is the length of each block of an observation."""
        self.single_observation_space: spaces.Dict = copy.deepcopy(env.single_observation_space)
        """Observation space of one slot. It is a copy, because libraries seed spaces and draw from them."""
        self.single_action_space: spaces.Space[Any] = copy.deepcopy(env.single_action_space)
        """Action space of one slot, a copy."""
        self.num_teachers = selection.num_teachers
        """Number of teachers K."""
        self.num_classes = data.task.num_classes
        """Number of classes C."""
        self.num_students = 1 if student is not None else settings.distillation.num_students
        """Number of students that the policy teaches; more than one where students teach each other."""
        self.teacher_names = pool.names
        """Names of the teachers."""
        self.pool_name = pool.name
        """Name of the pool."""
        self.teacher_widths = tuple(data.bank.widths)
        """Widths D_k of the teachers' features."""
        self.teacher_shapes = data.bank.shapes
        """Shapes of the teachers' features, and of the layers and maps that the setting asks for."""
        self.settings = replace(
            settings,
            distillation=replace(settings.distillation, num_students=self.num_students),
            reward=replace(settings.reward, label_seed=selection.label_seeds[student or 0]),
        )
        """All settings of the environment, with :attr:`num_students` of this policy."""
        self.action = selection.action_kind
        """Kind of the action."""
        self.terms = dict(run.loss.terms)
        """Loss terms of the setting, by knowledge type."""
        self.device = run.student.device
        """Device of the student."""
        self.dtype = run.student.dtype
        """Data type of the student."""
        reward = self.settings.reward
        self._reward_positions = labelled_positions(data.labels["reward"].numpy(), reward.reward_labels, reward.label_seed)

    @property
    def columns(self) -> dict[str, int]:
        """Number of columns of each block of an observation."""
        return {name: int(np.prod(space.shape or ())) for name, space in self.single_observation_space.items()}

    @property
    def uses_hard_labels(self) -> bool:
        """Whether training labels are part of the loss."""
        return self.settings.distillation.uses_hard_labels

    @property
    def credit_folds(self) -> int:
        """Number of folds of the reward labels that credit takes in turn; ``info["credit_fold"]`` names that of a step."""
        return self._selection.credit_folds

    def after_epochs(self, batch: PolicyBatch, count: int) -> Tensor:
        """Return which rows of a mini-batch are of students that have learned from all training examples ``count`` times, ``[rows]``."""
        after = self._selection.distillation.loss.after_epochs(batch.update, count)
        return torch.from_numpy(after).repeat_interleave(self.settings.distillation.batch_size)

    def batch(self) -> PolicyBatch:
        """Return the next mini-batch. The access that a field needs is checked when the field is read."""
        run = self._selection.distillation
        observed = run.observe()
        output = run.student_output() if GRADIENT in ALLOWED[self.access] else None
        if self._student is not None:
            rows = observed.rows_of(self._student)
            output = None if output is None else output.map(lambda tensor: tensor[rows])
            observed = observed.of_student(self._student)
        return PolicyBatch(observed, output, self.access, self.name)

    def _student_diverges(self) -> bool:
        """Return whether a student's logits have NaN or infinite numbers. Weights that are computed from them may then have them too."""
        return not bool(self._selection.distillation.observe().student.logits.isfinite().all())

    def decision(self, weights: Mapping[str, Tensor], factors: Mapping[str, float | Tensor] | None = None) -> Decision:
        """Return a decision.

        Args:
            weights: teacher weights ``[rows, K]`` by knowledge type.
            factors: factors of the strengths in the setting, by knowledge type, ``label`` or ``reward_ce``. Default: 1.
        """
        return decisions.decision_of_weights(self._selection.distillation, weights, factors)

    @needs(TEACHERS, "context")
    def reward_outputs(self) -> Examples:
        """Return the teachers' outputs on the reward split at the start of a run, without labels."""
        return self._examples("reward", np.arange(len(self._selection.data.labels["reward"])), labels=False)

    @needs(TEACHERS, "context")
    def once_per_example(self, function: OfTeachers) -> OncePerExample:
        """Return ``function(teacher_logits, teacher_features)`` of mini-batches; it is computed once for all examples if it can be."""
        return OncePerExample(self._selection, function, self._teacher_temperatures)

    @needs(TEACHERS, "context")
    def classifiers(self) -> list[tuple[Tensor, Tensor]]:
        """Return the teachers' linear classifiers, ``([C, D_k], [C])`` each."""
        linear, temperatures = classifiers(self._selection.pool), self._teacher_temperatures()
        divisors = [1.0] * len(linear) if temperatures is None else temperatures.tolist()
        return [(weight / divisor, bias / divisor) for (weight, bias), divisor in zip(linear, divisors, strict=True)]

    @property
    @needs(STUDENT, "context")
    def student(self) -> StudentView:
        """The student. Raises an error if several students are taught together."""
        self._require_single_student("student")
        return StudentView(self._selection, self.name, self.access, self._reward_positions)

    @property
    @needs(LABELS, "context")
    def labelled_train_positions(self) -> np.ndarray:
        """Positions of the examples of the train split that have a label."""
        return self._selection.data.task.train.labelled.copy()

    @needs(LABELS, "context")
    def train_examples(self, positions: np.ndarray) -> Examples:
        """Return the training examples at some positions, with labels."""
        return self._examples("train", positions, labels=True)

    @needs(REWARD, "context")
    def rehearsal(self) -> Rehearsal:
        """Return a copy of the environment whose student does not learn. Raises an error if several students are taught together."""
        self._require_single_student("rehearsal")
        return Rehearsal(self._selection)

    @property
    @needs(REWARD_LABELS, "context")
    def reward_positions(self) -> np.ndarray:
        """Positions of the examples of the reward split whose labels the policy has, ``[n]``, a copy."""
        return self._reward_positions.copy()

    @needs(REWARD_LABELS, "context")
    def reward_examples(self) -> Examples:
        """Return the examples at :attr:`reward_positions`, with labels."""
        return self._examples("reward", self._reward_positions, labels=True)

    @needs(REWARD_LABELS, "context")
    def with_reward_positions(self, positions: np.ndarray) -> PolicyContext:
        """Return this context with the labels of some of :attr:`reward_positions` alone, so that a policy can measure on the others.

        Raises:
            InputError: the policy does not have the labels of some positions.
        """
        context = copy.copy(self)
        context._reward_positions = granted_positions(positions, self._reward_positions, self.name, "with_reward_positions")
        return context

    @needs(REWARD_LABELS, "context")
    def own_students(self, count: int, seed: int, taught_positions: np.ndarray | None = None) -> OwnStudents:
        """Return students of the policy's own, to try decisions on.

        Args:
            count: number of students, at least 2.
            seed: seed from which all of them start.
            taught_positions: positions ``[count, n]`` whose labels ``reward_ce`` teaches each student. Default: :attr:`reward_positions`.
        """
        positions = np.repeat(self._reward_positions[None], count, axis=0) if taught_positions is None else taught_positions
        return OwnStudents(self._selection, self.name, self.access, count, seed, positions, self._reward_positions, self._student)

    def require_own_students(self) -> None:
        """Check, before the first update, that :meth:`own_students` can teach students like the policy's.

        Raises:
            InputError: the knowledge types compare peers, or the student has layers that cannot be run in a population, such as BatchNorm.
        """
        require_own_students(self._selection, self.name)

    @needs(REWARD_LABELS, "context")
    def credit(self, names: Sequence[str]) -> dict[str, Tensor]:
        """Return first-order credit ``[rows, K]`` of the next mini-batch, of the labels that the policy has, by knowledge type.

        Credit of ``label``, and of types that compare labels, also needs access to the training labels.
        """
        self._require_single_student("credit")
        return own_credit(self._selection, self._reward_positions, names, self.name, self.access)

    @needs(GROUPS, "context")
    def best_teachers(self, progress: float = 0.0) -> np.ndarray:
        """Return the index of the best teacher of each training example ``[N]`` at ``progress``, the fraction of the updates that are done.

        Raises:
            InputError: the best teachers of the pool are not known.
        """
        try:
            return known_best_teachers(self._selection.pool, self._selection.data.task, progress)
        except InputError as error:
            raise InputError(f"policy {self.name!r}: {error}, or leave this policy out") from None

    def _examples(self, split: str, positions: np.ndarray, labels: bool) -> Examples:
        return Examples.of(self._selection.data, split, positions, self._teacher_temperatures(), labels)

    def _teacher_temperatures(self) -> np.ndarray | None:
        temperatures = self._selection.distillation.teacher_temperatures  # [S, K]
        return None if temperatures is None else temperatures[self._student or 0]

    def _require_single_student(self, name: str) -> None:
        if self._student is not None:
            raise InputError(
                f"population: policy {self.name!r} reads context.{name}, which students taught together do not have; run it without "
                "--population, or declare supports_population = False in its class"
            )
