"""Save the best student of some trials. In: trials of one policy that differ in their seeds. Out: a Transformers checkpoint and its card.

The student with the best validation score is kept. Test scores appear only in the card. The students of all trials are saved until the
last trial is finished, and a trial has checkpoints while it runs, so that the same call resumes where it stopped. The finished folder is
moved into place as a whole.
"""

from __future__ import annotations

import functools
import shutil
from collections.abc import Sequence
from pathlib import Path

from kd_env.benchmark import records
from kd_env.benchmark.card import write_card
from kd_env.benchmark.changed_defaults import require_same_defaults
from kd_env.benchmark.checkpoints import FOLDER, CheckpointSettings
from kd_env.benchmark.progress import Progress
from kd_env.benchmark.race.state import FILE as RACE_FILE
from kd_env.benchmark.run import prepare
from kd_env.benchmark.run_trial import run_trials
from kd_env.benchmark.student_checkpoint import require_saveable, save_student
from kd_env.benchmark.trial import Trial
from kd_env.distillation import Distillation
from kd_env.errors import InputError
from kd_env.models.networks import build, reader
from kd_env.paths import claim_folder, partial_folder
from kd_env.randomness import reproducible

RECORDS = "distillation"
"""Subfolder of the checkpoint with the records and traces of its trials, which ``kd-env report`` reads."""


def distill(trials: Sequence[Trial], out: Path, progress: Progress) -> Path:
    """Run the trials, and save the best student and its card in the folder ``out``, unless ``out`` already contains them.

    Raises:
        InputError: the trials cannot be run, the student is not a Transformers model, or ``out`` contains something else.
    """
    with claim_folder(out, "distilling into it"):
        return _distill(trials, out, progress)


def _distill(trials: Sequence[Trial], out: Path, progress: Progress) -> Path:
    task, settings = trials[0].resolved.task, trials[0].resolved.settings
    require_saveable(build(settings.distillation.student, task, 0), settings.distillation.student, task)
    reader(settings.distillation.student, task)  # raises errors of the tokenizer before anything is written
    ids = {trial.id for trial in trials}
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        if (present := records.finished(out / RECORDS)) != ids:
            content = f"a student of other trials ({sorted(present)[0]})" if present else "something that this command did not write"
            raise InputError(f"{out} holds {content}; name a new folder")
        require_same_defaults(trials, out / RECORDS)
        return out
    partial = partial_folder(out)
    if (partial / RACE_FILE).exists():
        raise InputError(
            f"{partial}: a race was started there; leave --policy out to continue it, delete the folder, or name another --out"
        )
    folder = partial / RECORDS
    if foreign := records.finished(folder) - ids:
        raise InputError(f"{partial}: started by another command ({sorted(foreign)[0]}); delete it, or name another --out")
    require_same_defaults(trials, folder)
    todo = [trial for trial in trials if trial.id not in records.finished(folder)]
    with reproducible():
        prepare(todo, progress)
        folder.mkdir(parents=True, exist_ok=True)
        progress.start(len(todo), len(todo) * settings.distillation.updates, skipped=len(trials) - len(todo))
        keep, checkpoints = functools.partial(_save, partial), CheckpointSettings(folder, say=progress.say)
        for trial in todo:
            (record,) = run_trials([trial], folder, progress.reporter, keep, checkpoints)
            records.append(folder, record)
            checkpoints.remove(trial)
            progress.finished(record)
        _finish(partial, out, trials)
    return out


def _save(partial: Path, trial: Trial, run: Distillation) -> None:
    save_student(partial / "students" / trial.id, run)


def _finish(partial: Path, out: Path, trials: Sequence[Trial]) -> None:
    finished = records.read(partial / RECORDS)
    candidates = [record for record in finished if not record["diverged"]]
    if not candidates:
        raise InputError(f"{partial}: all students diverged; use a lower lr (--set optimizer=...) and another --out")
    best = max(candidates, key=lambda record: record["validation"])
    final = partial / "final"
    shutil.rmtree(final, ignore_errors=True)
    shutil.copytree(partial / "students" / best["trial"], final)
    write_card(
        final, trials[0].resolved.task, trials[0].teachers, trials[0].command, candidates, best, diverged=len(finished) - len(candidates)
    )
    shutil.copytree(partial / RECORDS, final / RECORDS, ignore=shutil.ignore_patterns(FOLDER))
    if out.exists():
        out.rmdir()
    final.replace(out)
    shutil.rmtree(partial)
