"""Trim the vocabulary of a finished student. In: its folder and the task. Out: the folder with fewer embeddings, and a section of its card.

A copy of the folder is trimmed and takes the place of the folder at the end. After a stop between the last two renames, :func:`recover`
finishes the second one.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch

from kd_env.benchmark import formats
from kd_env.benchmark.card import network_row
from kd_env.benchmark.report_text import NO_VALUE, number
from kd_env.errors import InputError
from kd_env.models.encode import TextReader
from kd_env.models.networks import reader
from kd_env.models.pretrained import Checkpoint, open_checkpoint
from kd_env.models.trim_vocabulary import require_trimmable, trim
from kd_env.tasks import Split, Task
from kd_env.teachers.checkpoint import CheckpointTeacher

FILE = "vocabulary.json"
HEADING = "## Vocabulary"
TOLERANCE = 1e-5
"""Largest accepted difference of a logit: the embeddings of the remaining tokens are the same numbers."""


def require_trimmable_student(student: str, task: Task) -> None:
    """Check, before it is taught, that the vocabulary of a student can be trimmed.

    Raises:
        InputError: it reads images, or its tokenizer is of a type that cannot be trimmed.
    """
    if task.kind != "text":
        raise InputError(f"--trim-vocabulary: task {task.name!r} has images; only students that read texts have a vocabulary")
    read = reader(student, task)
    assert task.tokenizer is not None
    require_trimmable(read.tokenizer if isinstance(read, TextReader) else task.tokenizer(), f"student {student!r}")


def trim_vocabulary(folder: Path, task: Task) -> str:
    """Trim the vocabulary of the student in ``folder``, unless it is trimmed, and return a line with the sizes before and after.

    Other formats of the student are deleted; :func:`~kd_env.benchmark.formats.write_formats` writes them again.

    Raises:
        InputError: the tokenizer cannot be trimmed, or the student would answer otherwise on train, reward or validation.
    """
    if not (folder / FILE).exists():
        copy, _ = _siblings(folder)
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(folder, copy)
        _trim(folder, copy, task)
        _replace(folder)
    sizes = json.loads((folder / FILE).read_text())
    (tokens, _, mb), (new_tokens, _, new_mb) = sizes["before"], sizes["after"]
    return f"vocabulary: {tokens:,} tokens, {mb:.1f} MB; now {new_tokens:,} tokens, {new_mb:.1f} MB, with equal outputs on validation"


def recover(folder: Path) -> None:
    """Finish a replacement of ``folder`` that was stopped."""
    copy, old = _siblings(folder)
    if old.exists() and not folder.exists():
        copy.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def _siblings(folder: Path) -> tuple[Path, Path]:
    """Return where the trimmed copy is made, and where the folder goes before the copy takes its place."""
    place = folder.absolute()
    return place.with_name(f".{place.name}.trimmed"), place.with_name(f".{place.name}.untrimmed")


def _replace(folder: Path) -> None:
    copy, old = _siblings(folder)
    folder.rename(old)
    copy.rename(folder)
    shutil.rmtree(old)


def _trim(folder: Path, copy: Path, task: Task) -> None:
    """Trim the student in ``copy``, compare it with that in ``folder``, and write its section of the card."""
    for name in ("model.onnx", "model.onnx.data", "model_int8.onnx", formats.FILE):
        (copy / name).unlink(missing_ok=True)
    checkpoint = open_checkpoint(str(copy), task)
    assert isinstance(checkpoint, Checkpoint)
    tokens = trim(checkpoint, np.concatenate([task.train.inputs, task.reward.inputs, task.validation.inputs]))
    development = task.development()
    before = CheckpointTeacher(str(folder), development, "this student")
    after = CheckpointTeacher(str(copy), development, "this student")
    logits, new_logits = _logits(before, task.validation), _logits(after, task.validation)
    scores = [task.score(part.argmax(1).numpy(), task.validation.labels) for part in (logits, new_logits)]
    difference = float((logits - new_logits).abs().max())
    if scores[0] != scores[1] or not difference <= TOLERANCE:
        raise InputError(
            f"--trim-vocabulary: {folder} would answer otherwise on validation ({task.metric} {scores[1]:.4f}, before {scores[0]:.4f}; "
            f"a logit differs by {difference:.1g}); leave the option out"
        )
    sizes = {
        name: (size, sum(parameter.numel() for parameter in student.network.parameters()), _megabytes(place))
        for name, size, student, place in (("before", tokens[0], before, folder), ("after", tokens[1], after, copy))
    }
    tests = None
    if task.test is not None:
        tests = [task.score(_logits(student, task.test).argmax(1).numpy(), task.test.labels) for student in (before, after)]
    _write_section(copy / "README.md", task, sizes, scores, tests, network_row(after, task))
    (copy / FILE).write_text(json.dumps(sizes, indent=1) + "\n")


def _logits(student: CheckpointTeacher, split: Split, batch: int = 64) -> torch.Tensor:
    return torch.cat([student(split.inputs[start : start + batch]).logits for start in range(0, len(split), batch)])


def _megabytes(folder: Path) -> float:
    """Return the size of weights and tokenizer."""
    files: Iterable[Path] = [*folder.glob("*.safetensors"), *folder.glob("tokenizer.json")]
    return sum(path.stat().st_size for path in files) / 1e6


def _write_section(
    card: Path,
    task: Task,
    sizes: dict[str, tuple[int, int, float]],
    scores: Sequence[float],
    tests: Sequence[float] | None,
    row: Sequence[str],
) -> None:
    """Write the sizes and scores at the end of the card, and the numbers of the trimmed student in its other places."""
    text = card.read_text().partition(f"\n{formats.HEADING}\n")[0].rstrip()
    text = re.sub(r"^\| this student \|.*$", lambda _: f"| {' | '.join(row)} |", text, count=1, flags=re.MULTILINE)
    if tests is not None:
        text = re.sub(r"^(      value: )[-\d.]+$", rf"\g<1>{tests[1]:.4f}", text, count=1, flags=re.MULTILINE)
    shown = [NO_VALUE] * 2 if tests is None else [number(value) for value in tests]
    head = f"| | tokens | parameters | MB | validation {task.metric} | test {task.metric} |"
    lines = [
        f"| {name} | {tokens:,} | {parameters:,} | {mb:.1f} | {number(score)} | {test} |"
        for (name, (tokens, parameters, mb)), score, test in zip(sizes.items(), scores, shown, strict=True)
    ]
    explanation = [
        "Tokens that the texts of train, reward and validation do not contain were removed from the embeddings and the tokenizer; single",
        "characters and special tokens stay. Words that are not in these texts are read as shorter pieces. All scores above this table are",
        "those before, except in the row of this student.",
    ]
    card.write_text("\n".join([text, "", HEADING, "", *explanation, "", head, "| --- | --- | --- | --- | --- | --- |", *lines]) + "\n")
