"""Observations: named 1-D blocks of float32, finite, clipped to [-10, 10].

In: :class:`~kd_env.types.Batch`. Out: ``instance``, ``teachers`` (K x F flattened), ``student``, ``progress``, one row an instance.

``COLUMNS`` lists every column. ``summary`` is free of the number of classes and of the student's width, so that a policy can move to
another task; ``full`` is RL-KD's state (Yuan et al. 2021, arXiv 2012.06048): R(x), p_k and, with labels, c_k. R(x) is the student's
last feature, which is what we take the paper's embedding to be. ``cls`` is AKD's (Wang et al. 2022, arXiv 2302.00444): the last layers'
[CLS] (the classifier's inputs), and nothing else. Groups are never observed.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from kd_env.knowledge import label, response
from kd_env.types import Batch, Observation

BOUND = 10.0

COLUMNS: dict[str, dict[str, tuple[str, ...]]] = {
    "summary": {
        "instance": ("share of teachers in the majority", "mixture: largest probability", "mixture: entropy / ln C"),
        "teachers": (
            "largest probability",
            "entropy / ln C",
            "margin between the two largest probabilities",
            "KL(teacher, student)",
            "agrees with the student",
            "agrees with the majority",
            "cross-entropy [label]",
            "is right [label]",
        ),
        "student": ("largest probability", "entropy / ln C", "margin", "cross-entropy [label]", "is right [label]"),
        "progress": ("part of the budget spent",),
    },
    "full": {
        "instance": ("R(x): the student's feature, D columns",),
        "teachers": ("p_k: probabilities, C columns", "c_k: cross-entropy [label]"),
        "student": ("q: probabilities, C columns", "cross-entropy [label]"),
        "progress": ("part of the budget spent",),
    },
    "cls": {
        "teachers": ("last feature of each teacher, D_1 + ... + D_K columns",),
        "student": ("last feature, D columns",),
        "progress": ("part of the budget spent",),
    },
}
"""Every column; those marked ``[label]`` read the training label and are dropped by ``observe_labels=False``."""


def observe(features: Batch, kind: Literal["summary", "full", "cls"], labels: bool) -> Observation:
    """Blocks ``{name: [rows, F]}`` of the mini-batches; ``labels`` adds the columns that read them."""
    blocks = _summary(features, labels) if kind == "summary" else _full(features, labels) if kind == "full" else _cls(features)
    rows = len(features.example_ids)
    spent = np.repeat(features.progress, rows // len(features.progress))
    blocks["progress"] = torch.from_numpy(spent[:, None]).to(features.labels.device)
    flat = torch.cat([block.reshape(rows, -1).float() for block in blocks.values()], 1)
    table = torch.nan_to_num(flat, nan=0.0, posinf=BOUND, neginf=-BOUND).clamp(-BOUND, BOUND).cpu().numpy()  # one copy off the device
    ends = np.cumsum([block[0].numel() for block in blocks.values()])[:-1]
    return {name: np.ascontiguousarray(part) for name, part in zip(blocks, np.split(table, ends, axis=1), strict=True)}


def space(observation: Observation, rows: int = 1) -> spaces.Dict:
    """The space of ``rows`` such rows laid end to end."""
    return spaces.Dict(
        {name: spaces.Box(-BOUND, BOUND, (rows * block.shape[1],), np.float32) for name, block in observation.items()},
    )


def split_teachers(observation: Observation, num_teachers: int) -> np.ndarray:
    """The ``teachers`` block as ``[..., K, F]``; of ``cls`` features only where all teachers have the same width."""
    block = observation["teachers"]
    return block.reshape(*block.shape[:-1], num_teachers, -1)


def _summary(features: Batch, labels: bool) -> dict[str, Tensor]:
    teachers, student = features.teacher_logits, features.student.logits  # [B, K, C], [B, C]
    num_classes = teachers.shape[2]
    votes = torch.nn.functional.one_hot(teachers.argmax(2), num_classes).float().mean(1)  # [B, C]
    mixture = teachers.softmax(2).mean(1)  # [B, C]
    choice = teachers.argmax(2)  # [B, K]
    about_teachers = [
        *_confidence(teachers.softmax(2)),
        response.per_teacher(student, teachers, temperature=1.0),
        (choice == student.argmax(1, keepdim=True)).float(),
        (choice == votes.argmax(1, keepdim=True)).float(),
    ]
    about_student = _confidence(student.softmax(1))
    if labels:
        about_teachers += [label.teacher_ce(features.teacher_logits, features.labels), (choice == features.labels[:, None]).float()]
        about_student += [label.ce(student, features.labels), (student.argmax(1) == features.labels).float()]
    return {
        "instance": torch.stack([votes.amax(1), *_confidence(mixture)[:2]], 1),
        "teachers": torch.stack(about_teachers, 2),  # [B, K, F]
        "student": torch.stack(about_student, 1),
    }


def _full(features: Batch, labels: bool) -> dict[str, Tensor]:
    teachers, student = features.teacher_logits.softmax(2), features.student.logits.softmax(1)
    if labels:
        teachers = torch.cat([teachers, label.teacher_ce(features.teacher_logits, features.labels)[:, :, None]], 2)
        student = torch.cat([student, label.ce(features.student.logits, features.labels)[:, None]], 1)
    return {"instance": features.student.features, "teachers": teachers, "student": student}


def _cls(features: Batch) -> dict[str, Tensor]:
    return {"teachers": torch.cat(features.teacher_features, 1), "student": features.student.features}


def _confidence(probabilities: Tensor) -> list[Tensor]:
    """Largest probability, entropy / ln C, margin, each ``[...]``."""
    largest = probabilities.topk(2, dim=-1).values
    entropy = torch.special.entr(probabilities).sum(-1) / math.log(probabilities.shape[-1])
    return [largest[..., 0], entropy, largest[..., 0] - largest[..., 1]]
