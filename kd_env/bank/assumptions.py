"""Say what was assumed about teachers and how they score: lines to print before students are taught by them."""

from __future__ import annotations

import numpy as np

from kd_env.bank.bank import KnowledgeBank
from kd_env.models.checkpoint_files import quiet
from kd_env.models.encode import TextReader, count_cut
from kd_env.models.from_plugin import is_plugin
from kd_env.models.networks import begins_as_checkpoint, reader
from kd_env.tasks import Task
from kd_env.teachers import NetworkTeacher, Pool
from kd_env.teachers.checkpoint import CheckpointTeacher
from kd_env.teachers.teacher import HasNotes


def teacher_lines(task: Task, pool: Pool, bank: KnowledgeBank) -> list[str]:
    """Return a line for each teacher, with its validation score, and a line for each thing to know about it.

    A teacher that is less often right than chance, or than the most frequent class, or that predicts one class for every example, is named.
    """
    lines = [f"  {name}: validation {task.metric} {score:.3f}" for name, score in bank.scores(task).items()]
    predictions, labels = bank.gather("validation", slice(None)).logits.argmax(2), task.validation.labels  # [N, K]
    for k, teacher in enumerate(pool.teachers):
        notes = [*(teacher.notes if isinstance(teacher, HasNotes) else ()), *_score_notes(task, predictions[:, k], labels)]
        lines += [f"  note on {teacher.name}: {note}" for note in notes]
    return lines


def cut_lines(task: Task, pool: Pool, student: str | None = None) -> list[str]:
    """Return a line for each way of reading that cuts some of the training texts, or nothing for images.

    Args:
        student: architecture or checkpoint; its default is a built-in one.
    """
    if task.kind != "text" or task.tokenizer is None:
        return []
    own_reader = student is not None and begins_as_checkpoint(student) and not is_plugin(student)
    limits: dict[str, tuple[object, int]] = {}
    if not own_reader or any(isinstance(teacher, NetworkTeacher) for teacher in pool.teachers):
        limits["built-in models"] = task.tokenizer(), task.max_length
    if own_reader and student is not None:
        read = reader(student, task)
        assert isinstance(read, TextReader)
        limits[f"student {student}"] = read.tokenizer, read.max_length
    for teacher in pool.teachers:
        if isinstance(teacher, CheckpointTeacher) and (limit := teacher.text_limit()) is not None:
            limits[f"teacher {teacher.name}"] = limit
    lines = []
    for who, (tokenizer, longest) in limits.items():
        with quiet():
            count, exact = count_cut(tokenizer, task.train.inputs, longest)
        if count:
            about = "" if exact else "about "
            more = "" if who.startswith("teacher ") else f"; --max-length {2 * longest} reads more"
            lines.append(f"  {who}: {about}{count:,} of {len(task.train):,} training texts are cut at {longest} tokens{more}")
    return lines


def _score_notes(task: Task, predictions: np.ndarray, labels: np.ndarray) -> list[str]:
    """Return what is wrong with a teacher's answers on validation, or nothing."""
    accuracy, shares = float((predictions == labels).mean()), np.bincount(labels, minlength=task.num_classes) / len(labels)
    most, chance = int(shares.argmax()), 1 / task.num_classes
    if (predictions == predictions[0]).all():
        return [f"it answers {task.class_names[predictions[0]]!r} to every validation example"]
    if accuracy < chance:
        return [
            f"it is below chance: validation accuracy {accuracy:.3f}, and {chance:.3f} by guessing; are its classes in the right order?"
        ]
    if accuracy < shares[most]:
        return [f"validation accuracy {accuracy:.3f} is below {shares[most]:.3f}, that of always answering {task.class_names[most]!r}"]
    return []
