"""Keep the finished students of trials. In: trials and their records. Out: a checkpoint per kept student in DIR/students.

``students/<trial>`` is the checkpoint of a trial's student; ``trial.json`` in it says what it is. With ``keep="best"``, only the student
with the best validation score stays of each task and student architecture; students that were kept by ``keep="all"`` always stay. A
student is saved before its record is written, so a finished trial has its student. Students that are neither Transformers models
nor convolutional networks, and those that diverged, are not kept.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from kd_env.benchmark import records
from kd_env.benchmark.records import Record
from kd_env.benchmark.student_checkpoint import require_saveable, save_student, student_network
from kd_env.benchmark.trial import Trial
from kd_env.distillation import Distillation
from kd_env.models.networks import build
from kd_env.models.saving import Saveable
from kd_env.paths import naming, partial_file

FOLDER = "students"
FILE = "trial.json"
KEEP = ("best", "all", "none")
"""Values of ``--keep``."""


@dataclass(frozen=True)
class KeptStudent:
    """A kept student.

    Attributes:
        trial: id of its trial.
        task: name of the task, with options.
        student: architecture, or checkpoint that it started from.
        validation: validation score.
        keep: ``best`` or ``all``: how it was kept.
    """

    trial: str
    task: str
    student: str
    validation: float
    keep: str

    @property
    def task_and_student(self) -> tuple[str, str]:
        """Task and student; the best student of each is kept."""
        return self.task, self.student


def keep_student(directory: Path, trial: Trial, record: Record, run: Distillation) -> None:
    """Save the student of a finished trial, completely or not at all, if the trial asks for it and the student can be saved."""
    if trial.keep == "none" or record["diverged"] or not isinstance(student_network(run), Saveable):
        return
    folder = directory / FOLDER / record["trial"]
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = partial_file(folder)
    with naming(folder):
        save_student(partial, run)
        kept = KeptStudent(record["trial"], record["env"]["task"], record["student"], record["validation"], trial.keep)
        (partial / FILE).write_text(json.dumps(asdict(kept), indent=1) + "\n")
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)


def kept_students(directory: Path, finished: Collection[str]) -> list[KeptStudent]:
    """Return the kept students of the trials in ``finished``, sorted by trial. Folders that are not complete are left out."""
    students = []
    for path in sorted((directory / FOLDER).glob(f"*/{FILE}")):
        try:
            content = json.loads(path.read_text())
            kept = KeptStudent(**{**content, "validation": float(content["validation"])})
        except (OSError, ValueError, TypeError, KeyError, RecursionError):
            continue
        if kept.trial in finished and kept.trial == path.parent.name:
            students.append(kept)
    return students


def delete_others(directory: Path, finished: Collection[str]) -> None:
    """Delete the students that ``keep="best"`` saved and that are no longer the best of their task and student."""
    best: dict[tuple[str, str], KeptStudent] = {}
    students = kept_students(directory, finished)
    for kept in students:
        if kept.task_and_student not in best or kept.validation > best[kept.task_and_student].validation:
            best[kept.task_and_student] = kept
    for kept in students:
        if kept.keep == "best" and kept != best[kept.task_and_student]:
            shutil.rmtree(directory / FOLDER / kept.trial, ignore_errors=True)


def with_missing_students(trials: Sequence[Trial], directory: Path) -> list[Trial]:
    """Return ``trials``. A finished trial whose student should be kept, but is not in its files, is marked to run again.

    With ``keep="best"`` this is the finished trial with the best validation score of each task and student.

    Raises:
        InputError: a student is not a Transformers model.
    """
    for student, trial in {trial.resolved.settings.distillation.student: trial for trial in trials}.items():
        require_saveable(build(student, trial.resolved.task, 0), student, trial.resolved.task, "; or --keep none")
    ids = {trial.id: trial.keep for trial in trials}
    all_records = records.read(directory) if records.finished(directory) else []
    finished = [record for record in all_records if record["trial"] in ids and not record["diverged"]]
    best: dict[tuple[str, str], Record] = {}
    for record in sorted(finished, key=lambda record: str(record["trial"])):  # of equal ones the first, as in :func:`delete_others`
        key = str((record["env"] or {}).get("task", record["task"])), str(record["student"])
        if key not in best or record["validation"] > best[key]["validation"]:
            best[key] = record
    expected = {record["trial"] for record in best.values()} | {record["trial"] for record in finished if ids[record["trial"]] == "all"}
    missing = {trial for trial in expected if not is_kept(directory, trial)}
    return [replace(trial, again=True) if trial.id in missing else trial for trial in trials]


def is_kept(directory: Path, trial: str) -> bool:
    """Return whether the student of a trial is kept."""
    return (directory / FOLDER / trial / FILE).is_file()
