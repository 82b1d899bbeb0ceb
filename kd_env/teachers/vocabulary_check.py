"""Refuse teachers that read other tokens than the student where attention is distilled.

Attention compares token with token, so that a student whose tokenizer differs from the teacher's would be taught at unrelated places.
"""

from __future__ import annotations

from kd_env.errors import InputError
from kd_env.knowledge.terms import parse_terms
from kd_env.models.encode import TextReader, vocabulary_hash
from kd_env.models.networks import reader
from kd_env.tasks import Task
from kd_env.teachers.checkpoint import CheckpointTeacher
from kd_env.teachers.teacher import NetworkTeacher, Pool, Teacher


def require_same_vocabulary(task: Task, pool: Pool, student: str, knowledge: str) -> None:
    """Check that student and teachers have the same vocabulary, if a knowledge type compares attention over the tokens of texts.

    The vocabulary of a teacher of another class is not known and not checked.

    Args:
        student: architecture or checkpoint, as in the ``student`` setting.
        knowledge: the ``knowledge`` setting.

    Raises:
        InputError: a teacher's tokenizer has another vocabulary than the student's.
    """
    names = [term.name for term in parse_terms(knowledge) if term.knowledge.compares == "attention"]
    if task.kind != "text" or not names:
        return
    student_vocabulary = _student_vocabulary(student, task)
    for teacher in pool.teachers:
        if _teacher_vocabulary(teacher) not in (None, student_vocabulary):
            raise InputError(
                f"knowledge={knowledge!r}: {names[0]} compares token with token, and the tokenizer of teacher {teacher.name!r} "
                f"has another vocabulary than that of student {student!r}; leave {names[0]} out, or give a student that starts from a "
                "checkpoint of that vocabulary"
            )


def _student_vocabulary(student: str, task: Task) -> str:
    read = reader(student, task)
    assert task.tokenizer is not None
    return vocabulary_hash(read.tokenizer if isinstance(read, TextReader) else task.tokenizer())


def _teacher_vocabulary(teacher: Teacher) -> str | None:
    if isinstance(teacher, CheckpointTeacher):
        return teacher.vocabulary
    if isinstance(teacher, NetworkTeacher) and teacher.task.tokenizer is not None:
        return vocabulary_hash(teacher.task.tokenizer())
    return None
