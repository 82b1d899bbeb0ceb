"""``glue/NAME``: GLUE's classification tasks, from the hub or from a folder in GLUE's layout (``SST-2/train.tsv`` and so on).

Wang et al., 2019, arXiv 1804.07461. test is dev (of MNLI, dev-matched), since the labels of GLUE's test are not published. If a folder
holds ``test_labeled.tsv`` (SST-2 and MRPC have published labels), that is test and dev is validation. STS-B is regression and AX has no
training data, so both are left out.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, NamedTuple

from kd_env.errors import InputError
from kd_env.tasks.folders import require_folder
from kd_env.tasks.tables import Table, read_table
from kd_env.tasks.task import Task, task_name
from kd_env.tasks.texts import text_task


class Source(NamedTuple):
    """Files and columns of a task.

    Attributes:
        folder: name of the task's folder in GLUE's layout.
        classes: in the order of the hub's numbers.
        texts: columns of the texts in the files.
        label: column of the label in the files.
        hub_texts: columns of the texts on the hub, where they differ from ``texts``.
        header: the columns of files that have no header line.
        dev: name of the dev file.
    """

    folder: str
    classes: tuple[str, ...]
    texts: tuple[str, ...] = ("sentence1", "sentence2")
    label: str = "label"
    hub_texts: tuple[str, ...] = ()
    header: tuple[str, ...] | None = None
    dev: str = "dev"


ENTAILMENT = ("entailment", "not_entailment")
SOURCES = {
    "sst2": Source("SST-2", ("negative", "positive"), ("sentence",)),
    "mrpc": Source("MRPC", ("not_equivalent", "equivalent"), ("#1 String", "#2 String"), "Quality", ("sentence1", "sentence2")),
    "rte": Source("RTE", ENTAILMENT),
    "cola": Source("CoLA", ("unacceptable", "acceptable"), ("sentence",), header=("source", "label", "mark", "sentence")),
    "qnli": Source("QNLI", ENTAILMENT, ("question", "sentence")),
    "wnli": Source("WNLI", ENTAILMENT[::-1]),
    "qqp": Source("QQP", ("not_duplicate", "duplicate"), ("question1", "question2"), "is_duplicate"),
    "mnli": Source(
        "MNLI", ("entailment", "neutral", "contradiction"), label="gold_label", hub_texts=("premise", "hypothesis"), dev="dev_matched"
    ),
}
HUB = "nyu-mll/glue"


def sst2(data_dir: str | None = None, metric: str = "accuracy") -> Task:
    """Sentiment of phrases and sentences from film reviews (Socher et al., 2013)."""
    return _load("sst2", data_dir, metric, "accuracy")


def mrpc(data_dir: str | None = None, metric: str = "f1") -> Task:
    """Whether two sentences from news mean the same (Dolan and Brockett, 2005)."""
    return _load("mrpc", data_dir, metric, "f1")


def rte(data_dir: str | None = None, metric: str = "accuracy") -> Task:
    """Whether one sentence follows from another (RTE 1, 2, 3 and 5)."""
    return _load("rte", data_dir, metric, "accuracy")


def cola(data_dir: str | None = None, metric: str = "mcc") -> Task:
    """Whether a sentence is grammatical (Warstadt et al., 2019)."""
    return _load("cola", data_dir, metric, "mcc")


def qnli(data_dir: str | None = None, metric: str = "accuracy") -> Task:
    """Whether a sentence answers a question (from SQuAD, Rajpurkar et al., 2016)."""
    return _load("qnli", data_dir, metric, "accuracy")


def wnli(data_dir: str | None = None, metric: str = "accuracy") -> Task:
    """Whether a sentence with its pronoun replaced follows (Levesque et al., 2012); dev contradicts train, so it cannot compare methods."""
    return _load("wnli", data_dir, metric, "accuracy")


def qqp(data_dir: str | None = None, metric: str = "f1") -> Task:
    """Whether two questions asked on Quora mean the same."""
    return _load("qqp", data_dir, metric, "f1")


def mnli(data_dir: str | None = None, metric: str = "accuracy") -> Task:
    """Whether one sentence follows from another, contradicts it or neither (Williams et al., 2018)."""
    return _load("mnli", data_dir, metric, "accuracy")


def _load(name: str, data_dir: str | None, metric: str, usual_metric: str) -> Task:
    files = _from_hub(name) if data_dir is None else _from_folder(name, data_dir)
    source, notes, tables = SOURCES[name], [], {}
    for role, table in files.items():
        tables[role], left_out = _text_table(table, source)
        if left_out:
            notes.append(f"{left_out} rows of {table.path.name} left out: torn or without a text, as published")
    full_name = task_name(f"glue/{name}", {"metric": metric}, {"metric": usual_metric})
    if "test" in tables:
        full_name += " [test_labeled.tsv]"  # another test than the hub's: not to be averaged with it
    return text_task(full_name, tables, metric, source.classes, notes)


def _from_folder(name: str, data_dir: str) -> dict[str, Table]:
    source = SOURCES[name]
    folder = require_folder(data_dir, f"glue/{name}") / source.folder
    paths = {"train": folder / "train.tsv", "dev": folder / f"{source.dev}.tsv"}
    for path in paths.values():
        if not path.is_file():
            raise InputError(f"{path}: no such file; data_dir is a folder in GLUE's layout, with {source.folder}/{path.name}")
    if (labelled := folder / "test_labeled.tsv").exists():
        paths["test"] = labelled
    return {role: read_table(path, source.header, leave_out_ragged=name == "qqp") for role, path in paths.items()}


def _from_hub(name: str) -> dict[str, Table]:
    source = SOURCES[name]
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # a failure is reported once, below
    try:
        from datasets import load_dataset

        splits = load_dataset(HUB, name)
        parts = {"train": splits["train"], "dev": splits["validation_matched" if name == "mnli" else "validation"]}
        hub_names = [*(source.hub_texts or source.texts), "label"]
        file_names = [*source.texts, source.label]
        return {
            role: Table(
                Path(f"{HUB}/{name}/{role}"),
                {file_name: list(part[hub_name]) for hub_name, file_name in zip(hub_names, file_names, strict=True)},
                list(range(len(part))),
            )
            for role, part in parts.items()
        }
    except Exception as error:  # the hub, its cache and the network fail in many ways
        raise InputError(
            f"task 'glue/{name}': {HUB} cannot be loaded from the hub ({type(error).__name__}: {str(error)[:120]}); "
            f"name a folder in GLUE's layout, as --data-dir PATH or glue/{name}(data_dir=PATH)"
        ) from None


def _text_table(table: Table, source: Source) -> tuple[Table, int]:
    """Return a table with the columns that text tasks have and labels by name, and the number of rows left out.

    Rows without a text are left out.
    """
    table.require((*source.texts, source.label), "; is it GLUE's file?")
    names = ("sentence",) if len(source.texts) == 1 else ("sentence1", "sentence2")
    texts = [[cell.strip() for cell in table.columns[column]] for column in source.texts]
    keep = [row for row in range(len(table.lines)) if all(column[row] for column in texts)]
    columns: dict[str, list[Any]] = {name: [column[row] for row in keep] for name, column in zip(names, texts, strict=True)}
    columns["label"] = [_class_name(str(table.columns[source.label][row]), source) for row in keep]
    left_out = table.left_out + len(table.lines) - len(keep)
    return Table(table.path, columns, [table.lines[row] for row in keep]), left_out


def _class_name(label: str, source: Source) -> str:
    """Return the name of a label; what is neither the name nor the number of a class stays, and is refused later."""
    return source.classes[int(label)] if label.isdecimal() and int(label) < len(source.classes) else label
