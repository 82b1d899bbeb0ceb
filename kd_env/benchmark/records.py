"""What a finished trial leaves. In: a `Record`, one dict a trial. Out: one JSON line in DIRECTORY/results.jsonl, and the way back.

Killed at any moment, the file holds whole lines and at most one torn last one, which reading skips and the next append removes.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from filelock import FileLock

from kd_env.errors import InputError

Record = dict[str, Any]
"""A trial's result; its keys are `FIELDS`. `curve` is a list of {update, validation, reward_split, train_loss}."""

FIELDS = (
    "trial", "suite", "task", "policy", "access", "seed", "student", "teachers", "pool", "updates", "metric", "test", "validation",
    "reward_split", "reward_labels", "reward_sum", "selection_rate", "selection_entropy", "student_forward_examples",
    "reward_forward_examples", "teacher_forward_examples", "wall_s", "peak_rss_mb", "device", "versions", "config", "bank", "env", "curve",
    "diverged",
)  # fmt: skip
FILE = "results.jsonl"


def trial_id(
    task: str, pool: str, policy: str, student: str, updates: int, reward_labels: int, seed: int, config: Mapping[str, Any]
) -> str:
    """A file-safe name that differs whenever the trial does: a readable prefix and 8 hex digits of a hash of all arguments.

    `config["command"]` does not count: how a trial was asked for does not change what it is, and a resumed run may ask for more seeds.
    """
    settings = {name: value for name, value in config.items() if name != "command"}
    identity = _plain([task, pool, policy, student, updates, reward_labels, seed, settings])
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:8]
    prefix = re.sub(r"[^A-Za-z0-9_]+", "-", f"{task}-{policy}")[:80].strip("-")
    return f"{prefix}-s{seed}-{digest}"


def append(directory: Path | str, record: Mapping[str, Any]) -> None:
    """Add one record, whole and on disk when this returns; safe from several processes at once.

    Raises:
        InputError: a field of `FIELDS` is missing.
    """
    path = Path(directory) / FILE
    _check_fields(record, str(path))
    line = json.dumps(_plain(record), allow_nan=False).encode() + b"\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"), path.open("ab+") as file:
        _drop_torn_line(file)
        file.write(line)
        file.flush()
        os.fsync(file.fileno())


def read(directory: Path | str) -> list[Record]:
    """All records in the order written; a trial recorded twice counts once, as last written.

    Raises:
        InputError: no records, or a line that is not a record.
    """
    path = Path(directory) / FILE
    records = _read(path) if path.is_file() else []
    if not records:
        raise InputError(f"{path}: no records; name a folder that `kd-env run` or `kd-env bench` wrote with --out")
    return records


def finished(directory: Path | str) -> set[str]:
    """Ids of the trials that need not run again; empty where nothing has been recorded yet."""
    path = Path(directory) / FILE
    return {record["trial"] for record in _read(path)} if path.is_file() else set()


def _read(path: Path) -> list[Record]:
    lines = path.read_bytes().split(b"\n")[:-1]  # what follows the last newline is torn, or nothing
    records: dict[str, Record] = {}
    for number, line in enumerate(lines, start=1):
        place = f"{path}, line {number}"
        try:
            record = json.loads(line)
        except ValueError as error:
            raise InputError(f"{place}: not JSON ({error}); delete that line and run the same command again") from error
        if not isinstance(record, dict):
            raise InputError(f"{place}: a JSON {type(record).__name__}, not an object; delete that line and run the same command again")
        _check_fields(record, place)
        records[record["trial"]] = record
    return list(records.values())


def _check_fields(record: Mapping[str, Any], place: str) -> None:
    if missing := [field for field in FIELDS if field not in record]:
        raise InputError(f"{place}: the record lacks {', '.join(missing)}; a record holds every field of kd_env.benchmark.records.FIELDS")


def _drop_torn_line(file: BinaryIO) -> None:
    if file.seek(0, os.SEEK_END) == 0:
        return
    file.seek(-1, os.SEEK_END)
    if file.read(1) != b"\n":  # a kill left a part of a line; only then is the file read as a whole
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)


def _plain(value: Any) -> Any:
    """The value in JSON's types: NumPy's become Python's, and a float that is not finite becomes null."""
    if isinstance(value, (np.ndarray, np.generic)):
        return _plain(value.tolist())
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
