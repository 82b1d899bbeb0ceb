"""``fdu-mtl``: sentiment of reviews in 16 domains, which are the groups; read from a folder with one folder for each domain.

Liu, Qiu and Huang, ACL 2017. Each domain holds ``train.tsv``, ``dev.tsv`` and ``test.tsv`` (``sentence, label``). The published files
repeat reviews across splits (149 of the 400 test reviews of magazines are also in train): rows of train and dev that ``overlap_rows.tsv``
lists (``domain, split, row``, counted from 0 after the header) are left out, and test stays as published. With ``unlabelled=true`` the
reviews of each ``unlabeled.tsv`` (``sentence``) are in train, without a label.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from kd_env.errors import InputError
from kd_env.tasks.folders import require_folder
from kd_env.tasks.tables import Table, read_table
from kd_env.tasks.task import Task
from kd_env.tasks.text_files import name_with_options
from kd_env.tasks.texts import text_task

ROLES = ("train", "dev", "test")
UNLABELLED = "unlabeled"
CLASSES = ("negative", "positive")


class JoinedDomains(NamedTuple):
    """One table of the reviews of all domains, and how many were left out.

    Attributes:
        table: the reviews, with a column ``domain``.
        listed: number of rows left out because ``overlap_rows.tsv`` lists them.
        empty: number of rows left out because they have no text.
    """

    table: Table
    listed: int
    empty: int


def load(data_dir: str | None = None, metric: str = "accuracy", unlabelled: bool = False) -> Task:
    """Load the folder: test as published, dev as validation, reward carved from train.

    Args:
        data_dir: the folder.
        metric: ``accuracy``, ``f1`` or ``mcc``.
        unlabelled: add the unlabelled reviews to train.

    Raises:
        InputError: a file is missing or malformed.
    """
    name = name_with_options("fdu-mtl", metric, unlabelled)
    folder = require_folder(data_dir, "fdu-mtl")
    domains = sorted(path.name for path in folder.iterdir() if (path / "train.tsv").exists())
    if len(domains) < 2:
        raise InputError(f"{folder}: {len(domains)} folders with a train.tsv; expected the folders of FDU-MTL, one for each of its domains")
    overlap = folder / "overlap_rows.tsv"
    listed = _listed_rows(overlap) if overlap.exists() else {}
    notes = []
    tables = {}
    for role in (*ROLES, UNLABELLED) if unlabelled else ROLES:
        parts = {domain: read_table(folder / domain / f"{role}.tsv") for domain in domains}
        joined = _join(folder, role, parts, {} if role == "test" else listed)
        tables[role] = joined.table
        if joined.listed:
            notes.append(f"{joined.listed} {role} examples left out: overlap_rows.tsv lists them")
        if joined.empty:
            notes.append(f"{joined.empty} {role} examples left out: they have no text")
    unlabelled_table = tables.pop(UNLABELLED, None)
    return text_task(name, tables, metric, CLASSES, notes, unlabelled_table)


def _listed_rows(path: Path) -> dict[tuple[str, str], set[int]]:
    """Return the rows to leave out, by domain and split."""
    table, names = read_table(path), ("domain", "split", "row")
    table.require(names)
    listed: dict[tuple[str, str], set[int]] = {}
    for position, (domain, split, row) in enumerate(zip(*(table.columns[name] for name in names), strict=True)):
        if not row.isdecimal():
            raise InputError(f"{table.place(position)}: row {row[:40]!r} is not a number; expected a whole number")
        listed.setdefault((domain, split), set()).add(int(row))
    return listed


def _join(folder: Path, role: str, parts: Mapping[str, Table], listed: Mapping[tuple[str, str], set[int]]) -> JoinedDomains:
    names = ("sentence",) if role == UNLABELLED else ("sentence", "label")
    table = Table(folder / "*" / f"{role}.tsv", {name: [] for name in (*names, "domain")}, [])
    num_listed = num_empty = 0
    for domain, part in parts.items():
        part.require(names)
        for row, (sentence, *label) in enumerate(zip(*(part.columns[name] for name in names), strict=True)):
            if row in listed.get((domain, role), ()):
                num_listed += 1
            elif not sentence.strip():
                num_empty += 1
            elif label and label[0] not in ("0", "1"):
                raise InputError(f"{part.place(row)}: label {label[0][:40]!r}, expected 0 (negative) or 1 (positive)")
            else:
                table.columns["sentence"].append(sentence)
                table.columns["domain"].append(domain)
                if label:
                    table.columns["label"].append(CLASSES[int(label[0])])
                table.lines.append(part.lines[row])
    return JoinedDomains(table, num_listed, num_empty)
