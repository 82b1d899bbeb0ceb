"""``clinc150``: intents of queries to an assistant, in ten domains; read from a folder of ``.tsv`` files.

Larson et al., EMNLP 2019: 150 intents, 15 in each domain. ``train``, ``dev`` and ``test`` hold ``sentence, label, intent, domain``.
Out-of-scope queries (files ``oos_*``) have no intent to predict and are left out.
"""

from __future__ import annotations

from kd_env.errors import InputError
from kd_env.tasks.folders import require_folder
from kd_env.tasks.tables import Table, read_table
from kd_env.tasks.task import Task, task_name
from kd_env.tasks.texts import text_task


def load(data_dir: str | None = None, metric: str = "accuracy") -> Task:
    """Load the folder: test as published, dev as validation, reward carved from train.

    Raises:
        InputError: a file is missing or malformed.
    """
    folder = require_folder(data_dir, "clinc150")
    files = {role: read_table(folder / f"{role}.tsv") for role in ("train", "dev", "test")}
    for table in files.values():
        table.require(("sentence", "label", "intent", "domain"))
    tables = {
        role: table._replace(
            columns={"sentence": table.columns["sentence"], "label": table.columns["intent"], "domain": table.columns["domain"]}
        )
        for role, table in files.items()
    }
    name = task_name("clinc150", {"metric": metric}, {"metric": "accuracy"})
    return text_task(name, tables, metric, _intents(files["train"]), ["out-of-scope queries (oos_*.tsv) are left out"])


def _intents(train: Table) -> list[str]:
    """Return the names of the intents in the order of their numbers."""
    labels = train.columns["label"]
    for row, label in enumerate(labels):
        if not label.isdecimal():
            raise InputError(f"{train.place(row)}: label {label[:40]!r} is not the number of an intent; expected a whole number")
    numbers = dict(zip(train.columns["intent"], labels, strict=True))
    return sorted(numbers, key=lambda intent: int(numbers[intent]))
