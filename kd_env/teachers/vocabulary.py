"""Whose tokens are whose. In: a task, a pool and the settings. Out: nothing, or one line that says who reads other tokens than the student.

Attention compares token with token, so that a student and a teacher whose tokenizers differ would be taught at unrelated places.
"""

from __future__ import annotations

from kd_env.errors import InputError
from kd_env.knowledge.terms import parse_terms
from kd_env.models.encode import TextReader, vocabulary_hash
from kd_env.models.networks import reader
from kd_env.tasks import Task
from kd_env.teachers import NetworkTeacher, Pool, Teacher
from kd_env.teachers.checkpoint import CheckpointTeacher


def require_same_tokens(task: Task, pool: Pool, student: str, knowledge: str) -> None:
    """See that student and teachers have one vocabulary, where a knowledge type compares attention over the tokens of texts.

    A teacher of a class of one's own is taken at its word, since what it reads is its own business.

    Raises:
        InputError: a teacher's tokenizer has another vocabulary than the student's.
    """
    names = [term.name for term in parse_terms(knowledge) if term.kind.compares == "attention"]
    if task.kind != "text" or not names:
        return
    ours = _of_student(student, task)
    for teacher in pool.teachers:
        theirs = _of_teacher(teacher)
        if theirs is not None and theirs != ours:
            raise InputError(
                f"knowledge={knowledge!r}: {names[0]} compares token with token, and the tokenizer of teacher {teacher.name!r} "
                f"has another vocabulary than that of student {student!r}; leave it out, or begin the student as a checkpoint "
                "of that vocabulary"
            )


def _of_student(student: str, task: Task) -> str:
    read = reader(student, task)
    assert task.tokenizer is not None
    return vocabulary_hash(read.tokenizer if isinstance(read, TextReader) else task.tokenizer())


def _of_teacher(teacher: Teacher) -> str | None:
    if isinstance(teacher, CheckpointTeacher):
        return teacher.vocabulary
    if isinstance(teacher, NetworkTeacher) and teacher.task.tokenizer is not None:
        return vocabulary_hash(teacher.task.tokenizer())
    return None
