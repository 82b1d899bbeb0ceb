"""``fdu-mtl``: sentiment of reviews in 16 domains. In: a folder of a folder a domain. Out: a task whose groups are the domains.

Liu, Qiu and Huang, ACL 2017. Each domain holds ``train.tsv``, ``dev.tsv`` and ``test.tsv`` (``sentence, label``). The published files
repeat reviews across splits (149 of 400 test reviews of magazines stand in train): rows of train and dev that ``overlap_rows.tsv`` lists
(``domain, split, row``, counted from 0 after the header) are left out, test stays as published. With ``unlabelled=true`` the reviews of the
domains' ``unlabeled.tsv`` (``sentence``) are in train, without a label.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from kd_env import spec
from kd_env.errors import InputError
from kd_env.tasks.tables import Table, read_table
from kd_env.tasks.task import Task
from kd_env.tasks.text_files import options_of, require_folder
from kd_env.tasks.texts import text_task

ROLES = ("train", "dev", "test")
UNLABELLED = "unlabeled"


def load(data_dir: str | None = None, metric: str = "accuracy", unlabelled: bool = False) -> Task:
    """Load the folder: test as published, dev as validation, reward carved from train; ``unlabelled`` adds those reviews to train.

    Raises:
        InputError: a file is missing or malformed.
    """
    title = str(spec.Spec("fdu-mtl", options_of(metric, unlabelled)))
    folder = require_folder(data_dir, "fdu-mtl")
    domains = sorted(path.name for path in folder.iterdir() if (path / "train.tsv").exists())
    if len(domains) < 2:
        raise InputError(
            f"{folder}: {len(domains)} folders with a train.tsv; expected FDU-MTL's, a folder for each of at least two domains"
        )
    overlap = folder / "overlap_rows.tsv"
    listed = _listed(overlap) if overlap.exists() else {}
    notes = []
    files = {}
    for role in (*ROLES, UNLABELLED) if unlabelled else ROLES:
        parts = {domain: read_table(folder / domain / f"{role}.tsv") for domain in domains}
        files[role], again, empty = _joined(folder, role, parts, {} if role == "test" else listed)
        if again:
            notes.append(f"{again} {role} examples left out: overlap_rows.tsv lists them")
        if empty:
            notes.append(f"{empty} {role} examples left out: they have no text")
    more = files.pop(UNLABELLED, None)
    return text_task(title, files, metric, ("negative", "positive"), notes, more)


def _listed(path: Path) -> dict[tuple[str, str], set[int]]:
    """Rows to leave out, by domain and split."""
    table = read_table(path)
    if absent := [name for name in ("domain", "split", "row") if name not in table.columns]:
        raise InputError(f"{path}: no column {absent[0]!r}, found {', '.join(table.columns)[:200]}")
    listed: dict[tuple[str, str], set[int]] = {}
    for at, (domain, split, row) in enumerate(zip(*(table.columns[name] for name in ("domain", "split", "row")), strict=True)):
        if not row.isdecimal():
            raise InputError(f"{table.place(at)}: row {row[:40]!r} is no number")
        listed.setdefault((domain, split), set()).add(int(row))
    return listed


def _joined(folder: Path, role: str, parts: Mapping[str, Table], listed: Mapping[tuple[str, str], set[int]]) -> tuple[Table, int, int]:
    """One table of all domains, and how many rows were left out: as listed, and for want of a text."""
    wanted = ("sentence",) if role == UNLABELLED else ("sentence", "label")
    joined = Table(folder / "*" / f"{role}.tsv", {name: [] for name in (*wanted, "domain")}, [])
    again = empty = 0
    for domain, table in parts.items():
        if absent := [name for name in wanted if name not in table.columns]:
            raise InputError(f"{table.path}: no column {absent[0]!r}, found {', '.join(table.columns)[:200]}")
        for row, (sentence, *label) in enumerate(zip(*(table.columns[name] for name in wanted), strict=True)):
            if row in listed.get((domain, role), ()):
                again += 1
            elif not sentence.strip():
                empty += 1
            elif label and label[0] not in ("0", "1"):
                raise InputError(f"{table.place(row)}: label {label[0][:40]!r}, expected 0 (negative) or 1 (positive)")
            else:
                joined.columns["sentence"].append(sentence)
                joined.columns["domain"].append(domain)
                if label:
                    joined.columns["label"].append(("negative", "positive")[int(label[0])])
                joined.lines.append(table.lines[row])
    return joined, again, empty
