"""What a policy is built with: the shape of its problem, and the data that its access includes."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, NoReturn

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from kd_env.distillation.calibration import calibrated
from kd_env.distillation.reward_split import labelled_rows
from kd_env.envs import decisions
from kd_env.envs.actions import ActionKind
from kd_env.envs.credit import first_order
from kd_env.envs.selection import Selection
from kd_env.envs.settings import Settings
from kd_env.errors import InputError
from kd_env.knowledge.terms import Term
from kd_env.policies.access import ALLOWED, GRADIENT, GROUPS, LABELS, REWARD, REWARD_LABELS, STUDENT, TEACHERS, refuse
from kd_env.policies.batch import PolicyBatch
from kd_env.policies.rehearsal import Rehearsal
from kd_env.policies.student_view import StudentView
from kd_env.teachers.best_teachers import best_teachers
from kd_env.teachers.teacher import classifiers
from kd_env.types import Decision


class Examples(NamedTuple):
    """Examples with the teachers' outputs.

    ``labels`` is ``None`` where the access does not include them.
    """

    teacher_logits: Tensor  # [n, K, C]
    teacher_features: tuple[Tensor, ...]  # K x [n, D_k]
    labels: Tensor | None  # [n]

    def known_labels(self) -> Tensor:
        """Return the labels, where the access includes them."""
        assert self.labels is not None
        return self.labels


RESOURCES = {
    "reward_outputs": TEACHERS,
    "classifiers": TEACHERS,
    "student": STUDENT,
    "train_examples": LABELS,
    "labelled_train_rows": LABELS,
    "rehearsal": REWARD,
    "reward_rows": REWARD_LABELS,
    "reward_examples": REWARD_LABELS,
    "credit": REWARD_LABELS,
    "best_teachers": GROUPS,
}
"""What each resource of a context needs."""


class PolicyContext:
    """What a policy may know. Reading a resource that its access does not include raises an error that names it.

    Attributes:
        num_envs: number of slots that the policy acts for, which is the length of each block of an observation.
        single_observation_space: observation space of one slot.
        single_action_space: action space of one slot.
        num_teachers: number of teachers K.
        num_classes: number of classes C.
        num_students: number of students that the policy teaches; more than one where students teach each other.
        teacher_names: names of the teachers.
        pool_name: name of their pool.
        teacher_widths: widths D_k of the teachers' features.
        settings: all settings of the environment, with ``num_students`` as above.
        action: the kind of action.
        terms: the knowledge types of the setting, by name.
        device, dtype: where the student computes, and in which type.
        batch: returns the mini-batch about to be taught, a :class:`PolicyBatch`.
        decision: returns the decision with teacher weights by knowledge type, and the setting's strengths times optional factors.
        reward_outputs: returns the teachers' outputs on the reward split at the start of a run, without labels.
        classifiers: returns the teachers' linear classifiers, ``([C, D_k], [C])`` each.
        student: the student, a :class:`StudentView`.
        labelled_train_rows: positions of the examples of the train split that have a label.
        train_examples: returns training examples with labels, at some positions.
        rehearsal: returns a :class:`Rehearsal`.
        reward_rows: positions of the examples of the reward split whose labels the policy has, ``[n]``.
        reward_examples: returns those examples with labels.
        credit: returns first-order credit ``[rows, K]`` of the mini-batch about to be taught, by knowledge type.
        best_teachers: returns for each training example ``[N]`` the teacher that is known to be best, at the start or at some progress.
    """

    name: str
    access: str
    num_envs: int
    single_observation_space: spaces.Dict
    single_action_space: spaces.Space[Any]
    num_teachers: int
    num_classes: int
    num_students: int
    teacher_names: tuple[str, ...]
    pool_name: str
    teacher_widths: tuple[int, ...]
    settings: Settings
    action: ActionKind
    terms: dict[str, Term]
    device: torch.device
    dtype: torch.dtype
    batch: Callable[[], PolicyBatch]
    decision: Callable[..., Decision]
    reward_outputs: Callable[[], Examples]
    classifiers: Callable[[], list[tuple[Tensor, Tensor]]]
    student: StudentView
    labelled_train_rows: np.ndarray
    train_examples: Callable[[np.ndarray], Examples]
    rehearsal: Callable[[], Rehearsal]
    reward_rows: np.ndarray
    reward_examples: Callable[[], Examples]
    credit: Callable[[Sequence[str]], dict[str, Tensor]]
    best_teachers: Callable[..., np.ndarray]

    def __init__(self, name: str, access: str, values: Mapping[str, Any]) -> None:
        """Keep those of ``values`` that ``access`` includes."""
        self.name, self.access = name, access
        self.__dict__.update({key: value for key, value in values.items() if key not in RESOURCES or RESOURCES[key] in ALLOWED[access]})

    @property
    def columns(self) -> dict[str, int]:
        """Number of columns of each block of an observation."""
        return {name: int(np.prod(space.shape or ())) for name, space in self.single_observation_space.items()}

    @property
    def uses_hard_labels(self) -> bool:
        """Whether training labels are part of the loss."""
        return self.settings.distillation.uses_hard_labels

    def __getattr__(self, name: str) -> NoReturn:
        """Raise the error of a resource that is not there."""
        if name in RESOURCES and RESOURCES[name] not in ALLOWED[self.access]:
            raise refuse(self.name, self.access, f"context.{name}", RESOURCES[name])
        if name in ("student", "credit", "rehearsal"):
            raise InputError(
                f"population: policy {self.name!r} reads context.{name}, which students taught together do not have; run it without "
                "--population, or declare supports_population = False in its class"
            )
        raise AttributeError(f"a policy's context has no {name!r}")


def make_context(env: Any, name: str, access: str, student: int | None = None) -> PolicyContext:
    """Return the context of a policy named ``name`` that acts in ``env`` (vector form).

    Args:
        student: the student of a population that the policy teaches; by default it acts for all slots.
    """
    selection: Selection = env.unwrapped.selection
    data, pool, settings = selection.data, selection.pool, selection.settings
    students = 1 if student is not None else settings.distillation.num_students
    label_seed = selection.label_seeds[0 if student is None else student]
    settings = replace(
        settings,
        distillation=replace(settings.distillation, num_students=students),
        reward=replace(settings.reward, label_seed=label_seed),
    )

    def batch() -> PolicyBatch:
        run = selection.distillation
        observed = run.observe()
        output = run.student_output() if GRADIENT in ALLOWED[access] else None
        if student is not None:
            rows = observed.rows_of(student)
            output = None if output is None else output.map(lambda tensor: tensor[rows])
            observed = observed.of_student(student)
        return PolicyBatch(observed, output, access, name)

    def temperatures() -> np.ndarray | None:
        fitted = selection.distillation.teacher_temperatures  # [S, K]
        return None if fitted is None else fitted[student or 0]

    def heads() -> list[tuple[Tensor, Tensor]]:
        fitted = temperatures()
        divisors = [1.0] * len(pool.teachers) if fitted is None else fitted.tolist()
        return [(weight / divisor, bias / divisor) for (weight, bias), divisor in zip(classifiers(pool), divisors, strict=True)]

    def examples(split: str, which: np.ndarray, labels: bool) -> Examples:
        answers = data.bank.gather(split, which)
        features = tuple(torch.from_numpy(values) for values in answers.features)
        return Examples(calibrated(answers.logits, temperatures()), features, data.labels[split][which] if labels else None)

    def decision(weights: Mapping[str, Tensor], factors: Mapping[str, float | Tensor] | None = None) -> Decision:
        return decisions.from_weights(selection.distillation, weights, factors)

    reward_rows = labelled_rows(data.labels["reward"].numpy(), settings.reward.reward_labels, label_seed)
    values: dict[str, Any] = {
        "num_envs": env.num_envs if student is None else env.num_envs // selection.num_students,
        "single_observation_space": copy.deepcopy(env.single_observation_space),  # libraries seed spaces and draw from them
        "single_action_space": copy.deepcopy(env.single_action_space),
        "num_teachers": selection.num_teachers,
        "num_classes": data.task.num_classes,
        "num_students": students,
        "teacher_names": pool.names,
        "pool_name": pool.name,
        "teacher_widths": tuple(data.bank.widths),
        "settings": settings,
        "action": selection.action_kind,
        "terms": selection.distillation.loss.terms,
        "device": selection.distillation.student.device,
        "dtype": selection.distillation.student.dtype,
        "batch": batch,
        "decision": decision,
        "reward_outputs": lambda: examples("reward", np.arange(len(data.labels["reward"])), labels=False),
        "classifiers": heads,
        "labelled_train_rows": data.task.train.labelled,
        "train_examples": lambda which: examples("train", which, labels=True),
        "reward_rows": reward_rows,
        "reward_examples": lambda: examples("reward", reward_rows, labels=True),
        "best_teachers": _best_teachers(selection, name),
    }
    if student is None:
        values |= {
            "student": StudentView(selection, access, name, reward_rows),
            "rehearsal": lambda: Rehearsal(selection),
            "credit": lambda names: first_order(selection.distillation, selection.meter, names),
        }
    return PolicyContext(name, access, values)


def _best_teachers(selection: Selection, policy: str) -> Callable[[float], np.ndarray]:
    pool, task = selection.pool, selection.data.task

    def at(progress: float = 0.0) -> np.ndarray:
        try:
            best = best_teachers(pool, task, progress)
        except InputError as error:
            raise InputError(f"policy {policy!r}: {error}, or leave this policy out") from None
        if best is None:
            raise InputError(f"policy {policy!r}: the best teachers of pool {pool.name!r} are not known; leave this policy out")
        return best

    return at
