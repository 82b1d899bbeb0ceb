"""Distil the best student of a race. In: a task, teachers, a student. Out: the student, a report on how it was chosen, a checkpoint."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kd_env import tasks
from kd_env.benchmark import formats, trimmed
from kd_env.benchmark.distill import RECORDS
from kd_env.benchmark.progress import Progress
from kd_env.benchmark.race.card import write_card
from kd_env.benchmark.race.prepare import PreparedRace, prepare_race
from kd_env.benchmark.race.report import RaceFacts, as_json, page, verdict
from kd_env.benchmark.race.results import RaceResult
from kd_env.benchmark.race.score import score_interval
from kd_env.benchmark.race.state import FILE
from kd_env.benchmark.shipping import Shipping
from kd_env.benchmark.student_checkpoint import require_saveable, save_student, student_network
from kd_env.errors import InputError
from kd_env.models import in_memory, low_bit_files
from kd_env.models.saving import TransformersNetwork
from kd_env.paths import claim_folder, partial_folder
from kd_env.randomness import reproducible
from kd_env.tasks import Task
from kd_env.teachers import Pool, Teacher

REPORT = "race.md"
"""Name of the report in the student's folder; ``race.json`` has the same content as JSON."""
READERS = ("preprocessor_config.json", "tokenizer.json", "tokenizer_config.json")
OPTIONAL_FILES = (formats.FILE, trimmed.FILE, low_bit_files.FILE, "model.onnx", "model_int8.onnx", *READERS)
"""Files that only some students have."""


@dataclass(frozen=True)
class Distilled:
    """A distilled student.

    Attributes:
        student: the network in evaluation mode: a Transformers model, a convolutional network, or another one, which :meth:`save` refuses.
        report: report in Markdown: the candidates, and how the student was chosen.
        verdict: a sentence that says whether the teachers help.
        test: score on the test split and the bounds of its 95 % interval, measured once, for this student; ``None`` without a test split.
    """

    student: Any
    report: str
    verdict: str
    test: tuple[float, float, float] | None
    _race: PreparedRace = field(repr=False)
    _result: RaceResult = field(repr=False)
    _facts: RaceFacts = field(repr=False)

    def save(self, folder: str | Path, export: str = "", dtype: str = "", trim_vocabulary: bool = False, push_to: str = "") -> Path:
        """Write a checkpoint, with its tokenizer where it has one, a model card and the report into ``folder``, and return ``folder``.

        Args:
            folder: the folder; an earlier student in it is replaced.
            export: ``"onnx"`` to write ``model.onnx`` too.
            dtype: number format of the weights: ``float32``, ``float16``, ``bfloat16``, or ``int8``, which writes ``model_int8.onnx``.
                Default: ``float32``.
            trim_vocabulary: whether to remove tokens that the texts of the task do not contain from embeddings and tokenizer.
            push_to: repository of the Hub to upload the folder to, ``ORG/NAME``; a new one is private. Default: nothing is uploaded.

        Raises:
            InputError: the student is not a network that can be saved, an option cannot be used, or the upload fails.
        """
        shipping = Shipping(trim_vocabulary, export, dtype, push_to)
        shipping.check()
        shipping.check_student(self._race.student, self._race.task)
        folder, run, task = Path(folder), self._result.student, self._race.task
        require_saveable(student_network(run), self._race.student, task)
        folder.mkdir(parents=True, exist_ok=True)
        for name in OPTIONAL_FILES:  # an earlier student may have had some that this one lacks
            (folder / name).unlink(missing_ok=True)
        save_student(folder, run)
        (folder / REPORT).write_text(self.report)
        content = {"key": self._race.key, **as_json(task, self._result, self._facts)}
        (folder / FILE).write_text(json.dumps(content, indent=1) + "\n")
        write_card(folder, self._race, self._result, self._facts)
        for _ in shipping.run(folder, task):
            pass
        return folder


def distill(
    task: Any,
    teachers: str | Pool | Sequence[str | Teacher | Callable[..., Any]] | None = None,
    student: Any = None,
    *,
    text: str | None = None,
    label: str | None = None,
    budget: str | int | None = None,
    seed: int = 0,
    out: str | Path | None = None,
    bank: str | Path | None = None,
    quiet: bool = True,
    **settings: Any,  # keywords of the environment, checked there
) -> Distilled:
    """Race candidates and return the best student.

    Args:
        task: name of a task, a :class:`~kd_env.tasks.Task`, or a ``datasets.Dataset`` or ``DatasetDict``, see
            :func:`kd_env.tasks.from_datasets`.
        teachers: a pool or its name, or a list of checkpoints, Transformers models (alone, as pipelines, or in pairs with their
            tokenizers), teachers, modules and callables. Default: the task's.
        student: architecture or checkpoint to start from, or a Transformers model as for ``teachers``. Default: the task's.
        text: column of the text in a dataset or in files of your own.
        label: column of the class.
        budget: cost of the race in updates of one student, as ``2000``, or a time, as ``"10min"``. Default: that of two students.
        seed: seed of the first student of each candidate.
        out: folder to save the student in. After a stop, the same call continues the race.
        bank: folder of a bank that was built before.
        quiet: whether to show no progress.
        **settings: settings for all candidates, such as ``updates`` or ``optimizer``.

    Raises:
        InputError: an argument cannot be used. It is raised before teaching starts, as far as possible.
    """
    if out is not None:
        require_free(Path(out))
    with reproducible(), Progress(quiet) as progress:
        if isinstance(task, str):
            task = tasks.load(tasks.with_options(task, text=text, label=label))
        elif not isinstance(task, Task):
            task = tasks.from_datasets(task, text=text, label=label)
        if student is not None and not isinstance(student, str):
            student = str(in_memory.save_to_cache(student))
        race = prepare_race(task, teachers, student, budget, seed, bank, settings, progress, to_save=out is not None)
        if out is not None:
            return distill_into(Path(out), race, progress)
        with tempfile.TemporaryDirectory() as folder:
            return _evaluated(race, race.run(Path(folder), progress))


def distill_into(out: Path, race: PreparedRace, progress: Progress) -> Distilled:
    """Run a race, or continue it, and save its student in the folder ``out``, completely or not at all.

    Raises:
        InputError: ``out`` is not empty, belongs to another race that was stopped, or another process distils into it.
    """
    with claim_folder(out, "distilling into it"):
        require_free(out)
        if is_finished(out, race):
            raise InputError(f"{out} holds this student already; name a new folder")
        if (out / FILE).exists():
            raise InputError(f"{out} holds the student of another race (other data, teachers or settings); name a new folder")
        partial = partial_folder(out)
        if (partial / RECORDS).exists():
            raise InputError(
                f"{partial}: trials of --policy were started there; name the policy to continue them, delete the folder, or name another "
                "--out"
            )
        distilled = _evaluated(race, race.run(partial, progress))
        final = partial / "final"
        shutil.rmtree(final, ignore_errors=True)
        distilled.save(final)
        if out.exists():
            out.rmdir()
        final.replace(out)
        shutil.rmtree(partial)
    return distilled


def require_free(out: Path) -> None:
    """Check that ``out`` is new, an empty folder, or the folder of a race. Call it before teachers are read, since it takes no time.

    Raises:
        InputError: it holds something else.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())) and not (out / FILE).is_file():
        raise InputError(f"{out} holds something that this command did not write; name a new folder")


def is_finished(out: Path, race: PreparedRace) -> bool:
    """Return whether the folder ``out`` contains the student of this race."""
    try:
        return bool(json.loads((out / FILE).read_text()).get("key") == race.key)
    except (OSError, ValueError, AttributeError):
        return False


def _evaluated(race: PreparedRace, result: RaceResult) -> Distilled:
    run, task, test = result.student, race.task, None
    if task.test is not None:  # used once, for the student that is kept
        classes = run.student.predict(run.data.read(task.test.inputs)).argmax(1).cpu().numpy()
        test = score_interval(task, task.test.labels, classes)
    facts = RaceFacts(race.student, race.setup.pool.names, str(race.budget), test, race.command)
    network = student_network(run)
    model = network.model if isinstance(network, TransformersNetwork) else network
    return Distilled(model.eval(), page(task, result, facts), verdict(task, result).replace("**", ""), test, race, result, facts)
