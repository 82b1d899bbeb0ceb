"""From trials to a student to deploy. In: trials of one policy that differ in their seeds. Out: a Transformers checkpoint and its card.

The student with the best validation is the one that is kept; test is in the card alone. Each trial's student is kept until all are there,
so that the same call carries on where it was stopped; the folder is moved in whole.
"""

from __future__ import annotations

import copy
import shutil
from collections.abc import Sequence
from pathlib import Path

from kd_env import tasks
from kd_env.benchmark import records
from kd_env.benchmark.card import write_card
from kd_env.benchmark.progress import Progress
from kd_env.benchmark.run import prepare
from kd_env.benchmark.run_trial import run_trials
from kd_env.benchmark.trial import Trial
from kd_env.distillation import Distillation
from kd_env.errors import InputError
from kd_env.models.encode import DEFAULT_MAX_TOKENS, TextReader
from kd_env.models.encoder import Encoder
from kd_env.models.networks import build, reader
from kd_env.models.saving import reader_to_save, save
from kd_env.models.wrapper import unwrap
from kd_env.randomness import one_thread

RECORDS = "distillation"
"""In the checkpoint's folder: records and traces of its trials, which ``kd-env report`` reads."""


def distill(trials: Sequence[Trial], out: Path, progress: Progress) -> Path:
    """Run the trials, save the best student and its card in the folder ``out``; one that is there is left as it is.

    Raises:
        InputError: anything in the trials that cannot be used, a student that is no Transformers model, ``out`` holding something else.
    """
    task, setting = tasks.load(trials[0].task), trials[0].chosen()
    if not isinstance(build(setting.student, task, 0), Encoder):
        mend = "tiny-vit" if task.kind == "image" else "tiny-bert"
        raise InputError(
            f"student {setting.student!r} is no Transformers model and cannot be saved as one; use --student {mend}, or a checkpoint"
        )
    reader(setting.student, task)  # what is wrong with its tokenizer is said before anything is written
    ids = {trial.id for trial in trials}
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        if (found := records.finished(out / RECORDS)) != ids:
            what = f"a student of other trials ({sorted(found)[0]})" if found else "something that this command did not write"
            raise InputError(f"{out} holds {what}; name a new folder")
        return out
    partial = out.absolute().with_name(f".{out.absolute().name}.partial")
    made = partial / RECORDS
    if begun := records.finished(made) - ids:
        raise InputError(f"{partial}: begun by another command ({sorted(begun)[0]}); delete it, or name another --out")
    todo = [trial for trial in trials if trial.id not in records.finished(made)]
    with one_thread():
        prepare(todo, progress)
        made.mkdir(parents=True, exist_ok=True)
        progress.start(len(todo), len(todo) * setting.updates, skipped=len(trials) - len(todo))
        for trial in todo:
            (record,) = run_trials([trial], made, progress.reporter, lambda trial, run: _save(partial / "students" / trial.id, run))
            records.append(made, record)
            progress.finished(record)
        _finish(partial, out, trials)
    return out


def _save(folder: Path, run: Distillation) -> None:
    network = copy.deepcopy(unwrap(run.student.network))  # what learned beside the student stays behind
    assert isinstance(network, Encoder)
    task, read = run.data.task, run.data.read
    save(folder, network.float().cpu().eval(), task, read if isinstance(read, TextReader) else reader_to_save(task, DEFAULT_MAX_TOKENS))


def _finish(partial: Path, out: Path, trials: Sequence[Trial]) -> None:
    found = [record for record in records.read(partial / RECORDS) if not record["diverged"]]
    if not found:
        raise InputError(f"{partial}: every student diverged; give --set optimizer= a lower lr, and another --out")
    best = max(found, key=lambda record: record["validation"])
    final = partial / "final"
    shutil.rmtree(final, ignore_errors=True)
    shutil.copytree(partial / "students" / best["trial"], final)
    write_card(final, trials[0], found, best)
    shutil.copytree(partial / RECORDS, final / RECORDS)
    if out.exists():
        out.rmdir()
    final.replace(out)
    shutil.rmtree(partial)
