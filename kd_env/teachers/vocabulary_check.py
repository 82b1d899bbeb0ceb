"""Refuse teachers that read other tokens than the student where attention is distilled.

Attention compares token with token, so that a student whose tokenizer differs from the teacher's would be taught at unrelated places. Where
one of them cuts a text earlier, its rows of attention are over other tokens.
"""

from __future__ import annotations

from typing import Any

from kd_env.errors import InputError
from kd_env.knowledge.terms import parse_terms
from kd_env.models.encode import TextReader, count_cut, vocabulary_hash
from kd_env.models.networks import reader
from kd_env.tasks import Task
from kd_env.teachers.checkpoint import CheckpointTeacher
from kd_env.teachers.teacher import NetworkTeacher, Pool, Teacher


def require_same_vocabulary(task: Task, pool: Pool, student: str, knowledge: str) -> None:
    """Check that student and teachers read the same tokens, if a knowledge type compares attention over the tokens of texts.

    The vocabulary of a teacher of another class is not known and not checked, and neither is where it cuts texts.

    Args:
        student: architecture or checkpoint, as in the ``student`` setting.
        knowledge: the ``knowledge`` setting.

    Raises:
        InputError: a teacher's tokenizer has another vocabulary than the student's, or cuts some training texts at another length.
    """
    names = [term.name for term in parse_terms(knowledge) if term.knowledge.compares == "attention"]
    if task.kind != "text" or not names:
        return
    tokenizer, length = _of_student(student, task)
    student_vocabulary = vocabulary_hash(tokenizer)
    for teacher in pool.teachers:
        teacher_vocabulary, teacher_length = _of_teacher(teacher)
        if teacher_vocabulary not in (None, student_vocabulary):
            raise InputError(
                f"knowledge={knowledge!r}: {names[0]} compares token with token, and the tokenizer of teacher {teacher.name!r} "
                f"has another vocabulary than that of student {student!r}; leave {names[0]} out, or give a student that starts from a "
                "checkpoint of that vocabulary"
            )
        if teacher_length not in (None, length) and count_cut(tokenizer, task.train.inputs, min(length, teacher_length))[0]:
            raise InputError(
                f"knowledge={knowledge!r}: {names[0]} compares token with token, and teacher {teacher.name!r} cuts texts at "
                f"{teacher_length} tokens, student {student!r} at {length}; leave {names[0]} out, or cut them alike (max_length)"
            )


def _of_student(student: str, task: Task) -> tuple[Any, int]:
    """Return the tokenizer of the student, and the number of tokens at which it cuts texts."""
    read = reader(student, task)
    assert task.tokenizer is not None
    return (read.tokenizer, read.max_length) if isinstance(read, TextReader) else (task.tokenizer(), task.max_length)


def _of_teacher(teacher: Teacher) -> tuple[str | None, int | None]:
    """Return the hash of the vocabulary of a teacher, and the number of tokens at which it cuts texts; ``None`` if not known."""
    if isinstance(teacher, CheckpointTeacher) and (limit := teacher.text_limit()) is not None:
        return teacher.vocabulary, limit[1]
    if isinstance(teacher, NetworkTeacher) and teacher.task.tokenizer is not None:
        return vocabulary_hash(teacher.task.tokenizer()), teacher.task.max_length
    return None, None
