"""Make references from a bank, to compare choices with. In: an environment. Out: arrays ``[N, K]`` over training examples and teachers.

If the teachers of the pool change during a run, the references are those of its start.
"""

from __future__ import annotations

from typing import Any, NoReturn, cast

import numpy as np
import torch

from kd_env.analysis.decisions import FloatArray
from kd_env.distillation import EncodedTask
from kd_env.distillation.calibration import calibrated
from kd_env.errors import InputError
from kd_env.policies import PolicyBatch, registry
from kd_env.policies.rules import RulePolicy
from kd_env.types import Batch, Decision, ModelOutput

ROWS = 1024
"""Number of examples that a rule decides about at once."""


def correct_teachers(env: Any) -> FloatArray:
    """Return 1 where the teacher's most probable class is the label of the training example, ``[N, K]``; 0 where the label is unknown.

    Args:
        env: a vector environment of this package.
    """
    data: EncodedTask = env.unwrapped.distillation.data
    labels = data.labels["train"].numpy()
    answers = data.bank.gather("train", np.arange(len(labels))).logits.argmax(2)
    correct: FloatArray = (answers == labels[:, None]).astype(np.float64)
    return correct


def rule_weights(policy: str, env: Any, seed: int = 0) -> FloatArray:
    """Return the weights of a rule for every training example, ``[N, K]``, without a student.

    Args:
        policy: name of a rule that does not read the student, such as ``most_confident``, ``camkd_logits``, ``router`` or ``oracle``.
        env: a vector environment of this package.
        seed: seed of the rule.

    Raises:
        InputError: the policy is not a rule, or its weights depend on the student; compare with its trace instead. Or it is a rule of
            knowledge selection, or has other weights for each knowledge type.
    """
    data: EncodedTask = env.unwrapped.distillation.data
    temperatures = env.unwrapped.distillation.teacher_temperatures  # [S, K], those of student 0 are used
    policy_class = registry.find(policy)
    if not env.unwrapped.selection.action_kind.decides_teachers:
        raise InputError("rule_weights: the actions of this environment select knowledge types; use kd_env/TeacherSelection-v0")
    built = policy_class.build(env, seed)
    if not isinstance(built, RulePolicy):
        raise InputError(f"rule_weights: policy {policy!r} acts on observations and is not a rule; run it and compare with its trace")
    student = cast(ModelOutput, NoStudent(policy))
    weights = []
    for rows in np.array_split(np.arange(len(data.task.train)), -(-len(data.task.train) // ROWS)):
        teachers = data.bank.gather("train", rows)
        features = tuple(torch.from_numpy(values) for values in teachers.features)
        batch = Batch(
            update=np.zeros(1, dtype=np.int64),
            progress=np.zeros(1),
            example_ids=rows,
            labels=data.labels["train"][rows],
            teacher_logits=calibrated(teachers.logits, None if temperatures is None else temperatures[0]),
            teacher_features=features,
            student=student,
        )
        decided = built.rule.decide(PolicyBatch(batch, student, policy_class.access, policy))
        if isinstance(decided, Decision):
            by_type = list(decided.weights.values())
            if not by_type or any(not torch.equal(by_type[0], other) for other in by_type):
                raise InputError(
                    f"rule_weights: policy {policy!r} has no weights, or gives knowledge types different ones; compare with its trace"
                )
            decided = by_type[0]
        weights.append(decided.detach().double().cpu().numpy())
    return np.concatenate(weights)


class NoStudent:
    """Stands for the student's outputs where there is no student; reading them is an error."""

    def __init__(self, policy: str) -> None:
        """Keep the name of the policy for the error."""
        self._policy = policy

    def __getattr__(self, name: str) -> NoReturn:
        """Refuse to be read."""
        raise InputError(f"rule_weights: the weights of policy {self._policy!r} depend on the student; run it and compare with its trace")
