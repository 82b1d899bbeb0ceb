"""``clinc150``: intents of queries to an assistant, in ten domains. In: a folder of ``.tsv`` files. Out: a task with groups.

Larson et al., EMNLP 2019: 150 intents, 15 a domain. ``train``, ``dev`` and ``test`` hold ``sentence, label, intent, domain``. Out-of-scope
queries (files ``oos_*``) have no intent to predict and are left out.
"""

from __future__ import annotations

from kd_env import spec
from kd_env.errors import InputError
from kd_env.tasks.tables import read_table
from kd_env.tasks.task import Task
from kd_env.tasks.text_files import require_folder
from kd_env.tasks.texts import text_task


def load(data_dir: str | None = None, metric: str = "accuracy") -> Task:
    """Load the folder: test as published, dev as validation, reward carved from train.

    Raises:
        InputError: a file is missing or malformed.
    """
    folder = require_folder(data_dir, "clinc150")
    files = {}
    for role in ("train", "dev", "test"):
        table = read_table(folder / f"{role}.tsv")
        if absent := [name for name in ("sentence", "label", "intent", "domain") if name not in table.columns]:
            raise InputError(f"{table.path}: no column {absent[0]!r}, found {', '.join(table.columns)[:200]}")
        files[role] = table
    train = files["train"].columns
    numbers = dict(zip(train["intent"], train["label"], strict=True))
    for row, number in enumerate(train["label"]):
        if not number.isdecimal():
            raise InputError(f"{files['train'].place(row)}: label {number[:40]!r} is no intent's number")
    names = sorted(numbers, key=lambda intent: int(numbers[intent]))
    tables = {
        role: table._replace(
            columns={"sentence": table.columns["sentence"], "label": table.columns["intent"], "domain": table.columns["domain"]}
        )
        for role, table in files.items()
    }
    title = str(spec.Spec("clinc150", {} if metric == "accuracy" else {"metric": metric}))
    return text_task(title, tables, metric, names, ["out-of-scope queries (oos_*.tsv) are left out"])
