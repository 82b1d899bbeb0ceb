"""Fine-tune a teacher on the train split of a task, or on some of its groups, into a Transformers checkpoint.

Training stops early on a slice of train; reward, validation and test are not used. The state is saved beside the final folder, so that the
same call resumes where it was stopped and, on CPU, ends in the same weights. The folder appears when it is complete.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from kd_env.errors import InputError
from kd_env.interrupts import CHECKPOINT_MINUTES
from kd_env.models import from_checkpoint
from kd_env.models.networks import begins_as_checkpoint
from kd_env.models.saving import save
from kd_env.paths import claim_folder, partial_folder
from kd_env.randomness import reproducible
from kd_env.tasks import Task
from kd_env.teachers.existing import ExistingTeacher
from kd_env.teachers.file_hashes import TEACHING_FILE, content_hash, write_sums
from kd_env.teachers.finetune_config import FinetuneConfig
from kd_env.teachers.finetune_loop import FinetuneLoop

ProgressCallback = Callable[[str, int, int, str], None]
"""Called with the teacher's name, the updates done, all updates, and a message: a line at the end of an epoch, else empty."""


def finetune(
    task: Task, config: FinetuneConfig, out: Path, progress: ProgressCallback | None = None, checkpoint_minutes: float = CHECKPOINT_MINUTES
) -> Path:
    """Fine-tune a teacher into the folder ``out`` and return it. A folder that holds the result of the same call is left as it is.

    Raises:
        InputError: the config cannot be used, ``out`` holds something else, or another process is making it.
    """
    task = task.development()
    config = config.filled(task)
    origin = {"task_content": task.fingerprint, **asdict(config), "model_content": model_content(config)}  # a name of the data is not part
    if not config.by_length:
        del origin["by_length"]  # teachers that were made before this field existed are the same
    identity: dict[str, Any] = json.loads(json.dumps(origin))  # as JSON holds it, to compare it with what is read back
    place = out.absolute()
    partial, lock = partial_folder(out), place.with_name(f".{place.name}.lock")
    if _is_complete(out, identity) and not partial.exists() and not lock.exists():
        return out
    with claim_folder(out, "making this teacher"):
        if _is_complete(out, identity):
            shutil.rmtree(partial, ignore_errors=True)  # a process that was killed left it
        else:
            _train(task, config, out, identity, progress, checkpoint_minutes)
    return out


def _train(
    task: Task, config: FinetuneConfig, out: Path, identity: dict[str, Any], progress: ProgressCallback | None, checkpoint_minutes: float
) -> None:
    partial = partial_folder(out)
    loop = FinetuneLoop(task, config, partial / "state", identity, checkpoint_minutes)
    partial.mkdir(parents=True, exist_ok=True)
    try:
        with reproducible():
            history = loop.run(lambda done, total, message: progress(out.name, done, total, message) if progress else None)
    except InputError:  # a second try would end in the same error
        shutil.rmtree(partial)
        raise
    final = partial / "final"
    shutil.rmtree(final, ignore_errors=True)
    save(final, loop.network, task, loop.reader)
    (final / TEACHING_FILE).write_text(json.dumps({"task": task.name, **identity, "history": history}, indent=1))
    write_sums(final)
    if out.exists():
        out.rmdir()
    final.replace(out)
    shutil.rmtree(partial)


def model_content(config: FinetuneConfig | ExistingTeacher) -> str:
    """Return the hash of the files of the config's model; empty for a built-in architecture or a hub id."""
    return content_hash(from_checkpoint.parse(config.model).name) if begins_as_checkpoint(config.model) else ""


def _is_complete(out: Path, identity: dict[str, Any]) -> bool:
    """Return whether the folder holds the teacher of ``identity``; if it holds something else, raise ``InputError``."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return False
    try:
        saved = dict(json.loads((out / TEACHING_FILE).read_text()))
    except (OSError, ValueError, TypeError, RecursionError):
        raise InputError(f"{out} holds something that kd-env teach did not write; name a new folder") from None
    if differences := sorted(key for key in identity if saved.get(key) != identity[key]):
        words = {"task_content": "data", "model_content": "model files"}  # names that mean something to a user
        raise InputError(
            f"{out} holds a teacher made with other {', '.join(words.get(key, key) for key in differences)}; "
            "name another folder or delete it"
        )
    return True
