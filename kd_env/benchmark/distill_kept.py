"""Make a checkpoint with a card of the best kept student of a results folder. In: a folder of ``kd-env run``. Out: a new folder.

The student with the best validation score is copied as it is; nothing is taught. Test scores appear only in the card. The finished folder
is moved into place as a whole.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from kd_env import tasks
from kd_env.benchmark import records
from kd_env.benchmark.card import write_card
from kd_env.benchmark.distill import RECORDS
from kd_env.benchmark.grouping import by_setting
from kd_env.benchmark.kept_students import FILE, FOLDER, KeptStudent, kept_students
from kd_env.benchmark.progress import Progress
from kd_env.benchmark.records import Record
from kd_env.errors import InputError
from kd_env.paths import claim_folder
from kd_env.randomness import reproducible
from kd_env.tasks import Task
from kd_env.teachers.checkpoint import CheckpointTeacher

TOLERANCE = 0.01
"""Largest accepted difference between a student's validation score and its record; examples on a decision boundary can fall either way."""


def find_best(results: Path, task: str | None = None, student: str | None = None) -> KeptStudent:
    """Return the kept student with the best validation score.

    Args:
        results: a results folder.
        task: name of the task; needed if the folder contains students of several tasks.
        student: name of the student, to choose among those of several students.

    Raises:
        InputError: the folder contains no such student, or students of several tasks.
    """
    all_records = records.read(results)
    position = {record["trial"]: number for number, record in enumerate(all_records)}
    students = sorted(kept_students(results, position), key=lambda kept: position[kept.trial])  # of equal ones, the first is the best
    if not students:
        raise InputError(
            f"{results / FOLDER}: no kept students; add --keep best to the kd-env run command that wrote {results}, and run it again "
            "(an mlp cannot be kept: use --student tiny-vit, resnet8 or a checkpoint)"
        )
    names = list(dict.fromkeys(kept.task for kept in students))
    if task is None and len(names) > 1:
        raise InputError(f"{results} holds students of several tasks; name one with --task: {', '.join(names)}")
    if task is not None and task not in names:
        raise InputError(f"--task {task}: {results} holds no student of it, but of {', '.join(names)}")
    of_task = [kept for kept in students if task in (None, kept.task)]
    candidates = [kept for kept in of_task if student in (None, kept.student)]
    if not candidates:
        others = ", ".join(dict.fromkeys(kept.student for kept in of_task))
        raise InputError(f"--student {student}: {results} holds no such student, but {others}")
    return max(candidates, key=lambda kept: kept.validation)


def distill_kept(results: Path, kept: KeptStudent, out: Path, progress: Progress, command: str = "") -> Path:
    """Save a kept student with its card in the folder ``out``, unless ``out`` already contains it.

    Args:
        results: the results folder.
        kept: the student, from :func:`find_best`.
        out: the new folder.
        progress: prints what was chosen.
        command: the command line, for the card.

    Raises:
        InputError: the task or the teachers cannot be loaded or have changed, or ``out`` contains something else.
    """
    compared = [record for record in records.read(results) if _task_and_student(record) == kept.task_and_student]
    best = next(record for record in compared if record["trial"] == kept.trial)
    if (higher := max(compared, key=_validation)) and _validation(higher) > kept.validation:
        progress.say(
            f"{higher['policy']} seed {higher['seed']} has a higher validation score ({_validation(higher):.3f}) and was not kept; "
            f"add --keep best to the kd-env run command that wrote {results}, and run it again to keep it"
        )
    with claim_folder(out, "distilling into it"):
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            if records.finished(out / RECORDS) != {record["trial"] for record in compared} or not _holds(out, kept):
                raise InputError(f"{out} holds something that this command did not write, or an earlier state; name a new folder")
            return out
        task = tasks.load(kept.task)
        new = out.absolute().with_name(f".{out.absolute().name}.from")
        shutil.rmtree(new, ignore_errors=True)
        new.parent.mkdir(parents=True, exist_ok=True)
        with reproducible():
            shutil.copytree(results / FOLDER / kept.trial, new)
            _require_same_score(new, task, kept)
            same = next((group for group in by_setting(compared).values() if best in group), [best])  # a later suite may have run it again
            of_policy = [record for record in same if record["policy"] == best["policy"] and not record["diverged"]]
            write_card(new, task, best["env"]["teachers"], command or best["config"].get("command", ""), of_policy, best, compared)
        _copy_records(results, new / RECORDS, compared)
        if out.exists():
            out.rmdir()
        new.rename(out)
    progress.say(f"kept: {best['policy']} seed {best['seed']}, validation {kept.validation:.3f}, of {len(compared)} trials")
    return out


def _task_and_student(record: Record) -> tuple[str, str]:
    return (record["env"] or {}).get("task", ""), record["student"]  # records of older versions can lack env


def _validation(record: Record) -> float:
    return -1.0 if record["diverged"] else float(record["validation"])


def _holds(out: Path, kept: KeptStudent) -> bool:
    try:
        return bool(json.loads((out / FILE).read_text())["trial"] == kept.trial)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _require_same_score(folder: Path, task: Task, kept: KeptStudent) -> None:
    """Check that the student scores on validation what its record says.

    Raises:
        InputError: it does not.
    """
    classes = CheckpointTeacher(str(folder), task.development(), "this student")(task.validation.inputs).logits.argmax(1).numpy()
    score = task.score(classes, task.validation.labels)
    if abs(score - kept.validation) > TOLERANCE:
        raise InputError(
            f"{kept.trial}: its student scores {score:.3f} on validation, and its record says {kept.validation:.3f}: the data of "
            f"{task.name} or the student's files have changed; run kd-env run again with the data as they are, and a new --out"
        )


def _copy_records(results: Path, target: Path, compared: Sequence[Record]) -> None:
    """Write records and copy their traces, for ``kd-env report``."""
    records.append(target, *compared)
    (target / f"{records.FILE}.lock").unlink(missing_ok=True)  # this folder is not shared yet
    for record in compared:
        trace = results / "traces" / f"{record['trial']}.parquet"
        if trace.is_file():
            (target / "traces").mkdir(exist_ok=True)
            shutil.copy2(trace, target / "traces")
