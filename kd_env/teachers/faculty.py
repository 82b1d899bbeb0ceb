"""``faculty(TEACHER)``: a checkpoint of other classes as a teacher, by optimal transport (Lu et al. 2022, arXiv 2204.11526).

In: a checkpoint whose classes are not the task's. Out: a teacher that answers in the task's classes, and the cost at which its classes are
transported to them, which ranks teachers: the lower, the closer its task.

    M_jc = 1 - cos(w_j, f_c)      w_j: weights of the teacher's class j; f_c: its mean features of class c on train; both centred
    T    = argmin <T, M> - epsilon H(T),    rows: the teacher's mean probabilities on train,    columns: the shares of the classes on train
    p(c | x) = sum_j p_own(j | x) T_jc / sum_c' T_jc'                                    cost = <T, M>

The page ``docs/systems/faculty.md`` says what of it is the paper's.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize, one_hot

from kd_env.errors import InputError
from kd_env.models.checkpoint_files import require_single_label, require_weights, teacher_name
from kd_env.models.pretrained import open_checkpoint
from kd_env.randomness import reproducible
from kd_env.tasks import Task
from kd_env.teachers.file_hashes import checkpoint_hash
from kd_env.teachers.live import LiveTeacher
from kd_env.teachers.sinkhorn import Transport, transport
from kd_env.types import ModelOutput

MAX_EXAMPLES = 5_000
"""Labelled training examples from which the transport is computed; if there are more, evenly spaced ones."""
BATCH = 64
MIN_PROBABILITY = 1e-8
"""Added to each probability, so that its logarithm is finite."""


@dataclass(frozen=True, eq=False)
class FacultyTeacher:
    """A classifier of other classes that answers in those of a task.

    Attributes:
        name: of the teacher.
        live: its network; logits are those of its own classes.
        weight: weights of its classifier, ``[own classes, D]``.
        class_names: names of its own classes.
        task: the task.
        content: hash of its weights.
        epsilon: weight of the entropy in the transport.
    """

    name: str
    live: LiveTeacher
    weight: Tensor
    class_names: tuple[str, ...]
    task: Task
    content: str
    epsilon: float = 0.05

    def fingerprint(self) -> str:
        """Return the hash of weights and task."""
        return hashlib.sha256(f"{self.content}:{self.task.fingerprint}:{self.epsilon}".encode()).hexdigest()

    @torch.no_grad()
    def __call__(self, inputs: np.ndarray) -> ModelOutput:
        """Return logits ``[B, C]`` in the task's classes, the logarithms of the transported probabilities, and its own features."""
        output = self.live(inputs)
        logits = (output.logits.double().softmax(1).cpu() @ self.conversion + MIN_PROBABILITY).log()
        return ModelOutput(logits.float(), output.features.float().cpu())

    @cached_property
    def transport(self) -> Transport:
        """Transport of its classes to the task's, fitted to labelled training examples."""
        rows = self.task.train.labelled
        rows = rows[np.linspace(0, len(rows) - 1, min(len(rows), MAX_EXAMPLES)).round().astype(np.int64)]
        split = self.task.train.take(rows)
        with reproducible(), torch.no_grad():
            outputs = [self.live(split.inputs[start : start + BATCH]) for start in range(0, len(split), BATCH)]
        probabilities = torch.cat([output.logits.double().softmax(1).cpu() for output in outputs])
        features = torch.cat([output.features.double().cpu() for output in outputs])
        members = one_hot(torch.from_numpy(split.labels), self.task.num_classes).double()  # [n, C]
        if not (members.sum(0) > 0).all():
            missing = self.task.class_names[int((members.sum(0) == 0).nonzero()[0])]
            raise InputError(f"faculty({self.name}): no labelled training example has the class {missing!r}; add some")
        prototypes = (members / members.sum(0)).T @ features  # [C, D]
        cost = 1.0 - normalize(_centred(self.weight.double())) @ normalize(_centred(prototypes)).T
        return transport(cost, probabilities.mean(0), members.mean(0), self.epsilon)

    @cached_property
    def conversion(self) -> Tensor:
        """Probability of each of the task's classes given each of its own, ``[own classes, C]``; rows sum to 1."""
        plan, mass = self.transport.plan, self.transport.plan.sum(1, keepdim=True)
        return torch.where(mass > 0, plan / mass, plan.sum(0))  # a class that it never predicts says nothing

    @property
    def notes(self) -> tuple[str, ...]:
        """Cost of the transport, and where the mass of its classes goes."""
        order = self.transport.plan.sum(1).argsort(descending=True)[:5].tolist()
        targets = self.conversion.argmax(1).tolist()
        pairs = ", ".join(f"{self.class_names[j]!r} to {self.task.class_names[targets[j]]!r}" for j in order)
        return (f"its {len(self.class_names)} classes are transported to the task's at cost {self.transport.cost:.3f}: {pairs}",)


def parse(text: str) -> str | None:
    """Return ``TEACHER`` of ``faculty(TEACHER)``, and ``None`` for any other text."""
    match = re.fullmatch(r"faculty\((.*)\)", text.strip())
    return match[1].strip() if match and "," not in match[1] else None


def open_faculty(text: str, task: Task) -> FacultyTeacher:
    """Open a checkpoint whose classes need not be the task's.

    Raises:
        InputError: the checkpoint cannot be used, or its logits are no linear map of its features.
    """
    if not text:
        raise InputError("faculty(): names no checkpoint; expected faculty(FOLDER_OR_HUB_ID)")
    checkpoint = open_checkpoint(text, task)
    require_single_label(checkpoint.folder, checkpoint.config)
    require_weights(checkpoint.folder)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    name, network = teacher_name(text), checkpoint.classifier().to(device)
    live = LiveTeacher(name, network, checkpoint.reader())
    with torch.no_grad():
        live(task.train.inputs[:2])  # a pass finds the last linear layer of any architecture
    weight = network.classifier.weight.detach().float().cpu()
    names = tuple(str(checkpoint.config.id2label[number]) for number in range(len(weight)))
    return FacultyTeacher(name, live, weight, names, task, checkpoint_hash(checkpoint.folder))


def ranked(teachers: list[FacultyTeacher]) -> list[tuple[str, float]]:
    """Return names and costs of teachers, the closest to the task first."""
    return sorted(((teacher.name, teacher.transport.cost) for teacher in teachers), key=lambda entry: entry[1])


def _centred(rows: Tensor) -> Tensor:
    return rows - rows.mean(0)
