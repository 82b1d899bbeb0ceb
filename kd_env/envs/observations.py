"""Define the observation sets, one class each: named 1-D blocks of float32, finite and clipped to [-10, 10].

In: a :class:`~kd_env.types.Batch`. Out: blocks, one row per instance. Each set lists its columns. A set of your own is a subclass of
:class:`ObservationSet`, used as ``observation="module:Class"``. Groups are never observed.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar, TypeVar

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from kd_env.errors import InputError
from kd_env.knowledge import label, response
from kd_env.plugins import build, faults_in, is_built_in
from kd_env.types import Batch, Observation

BOUND = 10.0
"""Largest absolute value in an observation."""
Block = TypeVar("Block", np.ndarray, Tensor)
"""Block of an observation, an array or a tensor."""
LABEL = "[label]"
"""Mark of columns that read the training label; ``observe_labels=False`` drops them."""


class ObservationSet(ABC):
    """Base class of observation sets.

    Attributes:
        columns: names of the columns by block, for ``kd-env list observations``. Names of columns that read the label end in :data:`LABEL`.
        teacher_blocks: names of the blocks that show the teachers alone. All other blocks may show the student, and policies whose access
            does not include its outputs do not get them.
    """

    columns: ClassVar[dict[str, tuple[str, ...]]]
    teacher_blocks: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def blocks(self, batch: Batch, labels: bool) -> dict[str, Tensor]:
        """Return the blocks by name, each ``[rows, ...]``, without ``progress``, which is added later.

        Args:
            batch: the mini-batches that the students learn from next.
            labels: whether to include the columns that read the label.
        """


class Summary(ObservationSet):
    """Observe summaries that do not depend on the number of classes or on the student's width, so that a policy transfers between tasks."""

    columns: ClassVar[dict[str, tuple[str, ...]]] = {
        "instance": ("share of teachers in the majority", "mixture: largest probability", "mixture: entropy / ln C"),
        "teachers": (
            "largest probability",
            "entropy / ln C",
            "margin between the two largest probabilities",
            "KL(teacher, student)",
            "agrees with the student",
            "agrees with the majority",
            f"cross-entropy {LABEL}",
            f"is right {LABEL}",
        ),
        "student": ("largest probability", "entropy / ln C", "margin", f"cross-entropy {LABEL}", f"is right {LABEL}"),
        "progress": ("part of the budget spent",),
    }

    def blocks(self, batch: Batch, labels: bool) -> dict[str, Tensor]:
        """Return ``instance [rows, 3]``, ``teachers [rows, K, 6 or 8]`` and ``student [rows, 3 or 5]``."""
        teachers, student = batch.teacher_logits, batch.student.logits  # [rows, K, C], [rows, C]
        num_classes = teachers.shape[2]
        predicted = teachers.argmax(2)  # [rows, K]
        votes = torch.nn.functional.one_hot(predicted, num_classes).float().mean(1)  # [rows, C]
        mixture = teachers.softmax(2).mean(1)  # [rows, C]
        of_teachers = [
            *_confidence(teachers.softmax(2)),
            response.per_teacher(student, teachers, temperature=1.0),
            (predicted == student.argmax(1, keepdim=True)).float(),
            (predicted == votes.argmax(1, keepdim=True)).float(),
        ]
        of_student = _confidence(student.softmax(1))
        if labels:
            of_teachers += [label.teacher_ce(teachers, batch.labels), (predicted == batch.labels[:, None]).float()]
            of_student += [label.ce(student, batch.labels), (student.argmax(1) == batch.labels).float()]
        return {
            "instance": torch.stack([votes.amax(1), *_confidence(mixture)[:2]], 1),
            "teachers": torch.stack(of_teachers, 2),
            "student": torch.stack(of_student, 1),
        }


class Full(ObservationSet):
    """Observe RL-KD's state (Yuan et al. 2021, arXiv 2012.06048): R(x), p_k and, with labels, c_k.

    The paper's embedding R(x) is taken to be the student's features.
    """

    columns: ClassVar[dict[str, tuple[str, ...]]] = {
        "instance": ("R(x): the student's features, D columns",),
        "teachers": ("p_k: probabilities, C columns", f"c_k: cross-entropy {LABEL}"),
        "student": ("q: probabilities, C columns", f"cross-entropy {LABEL}"),
        "progress": ("part of the budget spent",),
    }

    teacher_blocks = ("teachers",)

    def blocks(self, batch: Batch, labels: bool) -> dict[str, Tensor]:
        """Return ``instance [rows, D]``, ``teachers [rows, K, C or C + 1]`` and ``student [rows, C or C + 1]``."""
        teachers, student = batch.teacher_logits.softmax(2), batch.student.logits.softmax(1)
        if labels:
            teachers = torch.cat([teachers, label.teacher_ce(batch.teacher_logits, batch.labels)[:, :, None]], 2)
            student = torch.cat([student, label.ce(batch.student.logits, batch.labels)[:, None]], 1)
        return {"instance": batch.student.features, "teachers": teachers, "student": student}


class CLS(ObservationSet):
    """Observe AKD's state (Wang et al. 2022, arXiv 2302.00444): the features (last [CLS] vectors) of teachers and student."""

    columns: ClassVar[dict[str, tuple[str, ...]]] = {
        "teachers": ("features of each teacher, D_1 + ... + D_K columns",),
        "student": ("features, D columns",),
        "progress": ("part of the budget spent",),
    }

    teacher_blocks = ("teachers",)

    def blocks(self, batch: Batch, labels: bool) -> dict[str, Tensor]:
        """Return ``teachers [rows, D_1 + ... + D_K]`` and ``student [rows, D]``."""
        return {"teachers": torch.cat(batch.teacher_features, 1), "student": batch.student.features}


OBSERVATIONS: dict[str, type[ObservationSet]] = {"summary": Summary, "full": Full, "cls": CLS}
"""Built-in sets by their name in the setting ``observation``."""


def make_observation_set(text: str) -> ObservationSet:
    """Return the observation set ``text``, built-in or ``module:Class``.

    Raises:
        InputError: the set does not exist, or it is not an :class:`ObservationSet`.
    """
    return build(text, "observation", OBSERVATIONS, ObservationSet)


def observe(batch: Batch, observation_set: ObservationSet, labels: bool) -> Observation:
    """Return the observation of the mini-batches: blocks by name, each ``[rows, F]``; ``labels`` adds the columns that read the label."""
    rows = len(batch.example_ids)
    if is_built_in(type(observation_set)):
        blocks = observation_set.blocks(batch, labels)
    else:
        blocks = _own_blocks(batch, observation_set, labels)
    progress = np.repeat(batch.progress, rows // len(batch.progress))
    blocks["progress"] = torch.from_numpy(progress[:, None]).to(batch.labels.device)
    flat = torch.cat([block.reshape(rows, -1).float() for block in blocks.values()], 1)
    table = torch.nan_to_num(flat, nan=0.0, posinf=BOUND, neginf=-BOUND).clamp(-BOUND, BOUND).cpu().numpy()  # one copy off the device
    split_indices = np.cumsum([block[0].numel() for block in blocks.values()])[:-1]
    return {name: part.copy() for name, part in zip(blocks, np.split(table, split_indices, axis=1), strict=True)}


def _own_blocks(batch: Batch, observation_set: ObservationSet, labels: bool) -> dict[str, Tensor]:
    """Return the blocks of a user-defined set, which gets a copy of the mini-batches.

    Raises:
        InputError: it fails, or a block is not a tensor with a row per instance, has NaN though the student has not diverged, or is named
            ``progress``.
    """
    rows = len(batch.example_ids)
    with faults_in("observation set", type(observation_set)):
        returned = dict(observation_set.blocks(batch.clone(), labels))
    for name, block in returned.items():
        if not isinstance(block, Tensor) or block.ndim == 0 or len(block) != rows:
            raise InputError(f"observation set: block {name!r} is not a tensor of {rows} rows; return one row per instance")
        if block.isnan().any() and batch.student.logits.isfinite().all():
            raise InputError(f"observation set: block {name!r} has NaN, though the student has not diverged; replace it (torch.nan_to_num)")
    if "progress" in returned:
        raise InputError("observation set: a block is named 'progress', which the environment adds; give it another name")
    return {name: block.detach() for name, block in returned.items()}


def space(observation: Observation, slots: int = 1) -> spaces.Dict:
    """Return the space of such an observation of ``slots`` slots, concatenated."""
    return spaces.Dict(
        {name: spaces.Box(-BOUND, BOUND, (slots * block.shape[1],), np.float32) for name, block in observation.items()},
    )


def split_teachers(observation: Mapping[str, Block], num_teachers: int) -> Block:
    """Return the ``teachers`` block as ``[..., K, F]``. With ``cls``, all teachers must have the same width."""
    block = observation["teachers"]
    return block.reshape(*block.shape[:-1], num_teachers, -1)


def _confidence(probabilities: Tensor) -> list[Tensor]:
    """Return the largest probability, entropy / ln C and the margin of probabilities ``[..., C]``, each ``[...]``."""
    largest = probabilities.topk(2, dim=-1).values
    entropy = torch.special.entr(probabilities).sum(-1) / math.log(probabilities.shape[-1])
    return [largest[..., 0], entropy, largest[..., 0] - largest[..., 1]]
