"""``glue/NAME``: GLUE's classification tasks, from the hub or from a folder in GLUE's layout (``SST-2/train.tsv`` and so on).

Wang et al., 2019, arXiv 1804.07461. test is dev (of MNLI, dev-matched), since the labels of GLUE's test are not published; a folder may
hold ``test_labeled.tsv`` beside it (SST-2 and MRPC have published labels), which is test then, and dev is validation. STS-B is regression,
AX has no training data: neither is here.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, NamedTuple

from kd_env import spec
from kd_env.errors import InputError
from kd_env.tasks.tables import Table, read_table
from kd_env.tasks.task import Task
from kd_env.tasks.text_files import require_folder
from kd_env.tasks.texts import text_task


class Source(NamedTuple):
    """Where a task's columns are.

    Attributes:
        texts: columns of the texts in the folder's files and on the hub; ``label`` is the label's column in the files.
        classes: in the order of the hub's numbers.
        header: of files that have no header line.
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
    """Whether a sentence with its pronoun replaced follows (Levesque et al., 2012); dev contradicts train, no use to compare methods."""
    return _load("wnli", data_dir, metric, "accuracy")


def qqp(data_dir: str | None = None, metric: str = "f1") -> Task:
    """Whether two questions asked on Quora mean the same."""
    return _load("qqp", data_dir, metric, "f1")


def mnli(data_dir: str | None = None, metric: str = "accuracy") -> Task:
    """Whether one sentence follows from another, contradicts it or neither (Williams et al., 2018)."""
    return _load("mnli", data_dir, metric, "accuracy")


def _load(name: str, data_dir: str | None, metric: str, usual: str) -> Task:
    read = _from_hub(name) if data_dir is None else _from_folder(name, data_dir)
    source, notes, files = SOURCES[name], [], {}
    for role, table in read.items():
        files[role], left_out = _tidy(table, source)
        if left_out:
            notes.append(f"{left_out} rows of {table.path.name} left out: torn or without a text, as published")
    title = str(spec.Spec(f"glue/{name}", {} if metric == usual else {"metric": metric}))
    if "test" in files:
        title += " [test_labeled.tsv]"  # another test than the hub's: not to be averaged with it
    return text_task(title, files, metric, source.classes, notes)


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
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # what fails is said once, below
    try:
        from datasets import load_dataset

        splits = load_dataset(HUB, name)
        parts = {"train": splits["train"], "dev": splits["validation_matched" if name == "mnli" else "validation"]}
        columns = dict(zip(source.hub_texts or source.texts, source.texts, strict=True)) | {"label": source.label}
        return {
            role: Table(
                Path(f"{HUB}/{name}/{role}"), {ours: list(part[theirs]) for theirs, ours in columns.items()}, list(range(len(part)))
            )
            for role, part in parts.items()
        }
    except Exception as error:  # the hub, its cache and the network fail in many ways
        raise InputError(
            f"task 'glue/{name}': {HUB} cannot be had from the hub ({type(error).__name__}: {str(error)[:120]}); "
            f"name a folder in GLUE's layout, as --data-dir PATH or glue/{name}(data_dir=PATH)"
        ) from None


def _tidy(table: Table, source: Source) -> tuple[Table, int]:
    """The columns by the names that texts go by, labels by name, and without the rows that hold no text."""
    absent = [column for column in (*source.texts, source.label) if column not in table.columns]
    if absent:
        raise InputError(f"{table.path}: no column {absent[0]!r}, found {', '.join(table.columns)[:200]}; is it GLUE's file?")
    names = ("sentence",) if len(source.texts) == 1 else ("sentence1", "sentence2")
    texts = [[cell.strip() for cell in table.columns[column]] for column in source.texts]
    keep = [row for row in range(len(table.lines)) if all(column[row] for column in texts)]
    columns: dict[str, list[Any]] = {name: [column[row] for row in keep] for name, column in zip(names, texts, strict=True)}
    columns["label"] = [_class(str(table.columns[source.label][row]), source) for row in keep]
    left_out = table.left_out + len(table.lines) - len(keep)
    return Table(table.path, columns, [table.lines[row] for row in keep]), left_out


def _class(label: str, source: Source) -> str:
    """A label's name; what is neither a name nor a number of a class stays and is refused later."""
    return source.classes[int(label)] if label.isdecimal() and int(label) < len(source.classes) else label
