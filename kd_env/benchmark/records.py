"""Write and read the records of finished trials. In: a `Record`, one dict per trial. Out: one JSON line in DIRECTORY/results.jsonl.

If the writer is killed, the file contains whole lines and at most one incomplete last line. `read` skips that line, and the next `append`
removes it. A last record that only lacks its newline counts.

Committed records are compressed: ``gzip -9n results.jsonl`` makes results.jsonl.gz. `read` reads the compressed file first, then the plain
file. `append` always writes the plain file. ``gzip -9nc results.jsonl >> results.jsonl.gz && rm results.jsonl`` moves its lines to the
compressed file.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import re
import warnings
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock

from kd_env.benchmark.record_types import other_type
from kd_env.errors import InputError, Notice
from kd_env.paths import naming
from kd_env.serialization import json_value

Record = dict[str, Any]
"""The result of a trial; its keys are `FIELDS`.

- `weight_entropy`: mean entropy / ln K of the weights of a decision, in [0, 1]. 0 is one teacher, 1 is equal weights for all teachers.
- `selection_entropy`: mean entropy of the policy's selection probabilities, in [0, 1]; null if it has no probabilities,
  and in records from before the policy stated them.
- `curve`: list of {update, validation, train_loss}.

Two keys are not in all records: `test_split`, a hash of the content of test, empty if it was not opened; and `learned`, what the policy
learned, in a form for people, such as a schedule, if it has a method `learned_summary`.
"""

FIELDS = (
    "trial", "suite", "task", "policy", "access", "seed", "student", "teachers", "pool", "updates", "metric", "test", "validation",
    "reward_split", "reward_labels", "reward_sum", "selection_rate", "weight_entropy", "selection_entropy",
    "student_forward_examples", "reward_forward_examples", "teacher_forward_examples", "wall_s", "peak_rss_mb", "device", "versions",
    "config", "bank", "env", "curve", "diverged",
)  # fmt: skip
ENV_WITHOUT_SETTINGS = ("id", "num_envs", "task", "teachers", "bank", "label_seed")
"""Entries of a record's ``env`` that are no settings of the trial, or differ between seeds."""
CONFIG_WITHOUT_SETTINGS = ("command", "population", "test", "policy_from", "frozen", "tuned")
"""Entries of a record's ``config`` that are no settings of the environment."""
FILE = "results.jsonl"
COMPRESSED = "results.jsonl.gz"


def trial_id(
    task: str, pool: str, policy: str, student: str, updates: int, reward_labels: int, seed: int, config: Mapping[str, Any]
) -> str:
    """Return a file-safe name: a readable prefix, and 8 hex digits of a hash of all arguments. Different trials have different ids.

    `config["command"]` is not part of the hash, so a command with more seeds contains the trials of the earlier command.
    """
    settings = {name: value for name, value in config.items() if name != "command"}
    identity = json_value([task, pool, policy, student, updates, reward_labels, seed, settings])
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:8]
    return f"{id_prefix(task, policy, seed)}{digest}"


def id_prefix(task: str, policy: str, seed: int) -> str:
    """Return the readable beginning of a trial's id."""
    name = re.sub(r"[^A-Za-z0-9_]+", "-", f"{task}-{policy}")[:80].strip("-")
    return f"{name}-s{seed}-"


def append(directory: Path | str, *records: Mapping[str, Any]) -> None:
    """Append records, all at once. They are on disk when this function returns. Several processes may append at the same time.

    Raises:
        InputError: a field of `FIELDS` is missing.
    """
    path = Path(directory) / FILE
    for record in records:
        _check_fields(record, str(path))
    lines = b"".join(json.dumps(json_value(record), allow_nan=False).encode() + b"\n" for record in records)
    path.parent.mkdir(parents=True, exist_ok=True)
    with naming(path), FileLock(f"{path}.lock"), path.open("ab+") as file:
        _drop_torn_line(file)
        file.write(lines)
        file.flush()
        os.fsync(file.fileno())


def read(directory: Path | str) -> list[Record]:
    """Return all records in the order in which they were written. Of a trial that was recorded twice, only the last record is returned.

    A record with a field of another type is left out, with a warning that names its line.

    Raises:
        InputError: the folder has no records, or a line is not a record.
    """
    records, left_out = read_usable(directory)
    for reason in left_out:
        warnings.warn(reason, Notice, stacklevel=2)
    return records


def read_usable(directory: Path | str) -> tuple[list[Record], list[str]]:
    """Return what :func:`read` returns, and instead of warnings a line about each record that is left out.

    Raises:
        InputError: the folder has no records that can be used, or a line is not a record.
    """
    left_out: list[str] = []
    records = _by_trial(Path(directory), left_out)
    if not records:
        reason = left_out[0] if left_out else "no records; name a folder that `kd-env run` or `kd-env bench` wrote with --out"
        raise InputError(reason if left_out else f"{Path(directory) / FILE}: {reason}")
    return list(records.values()), left_out


def finished(directory: Path | str) -> set[str]:
    """Return the ids of the recorded trials, which need not run again."""
    return set(by_trial(directory))


class FinishedTrials:
    """The ids of the recorded trials of a folder to which other processes append; what was read is not read again."""

    def __init__(self, directory: Path | str) -> None:
        """Read all records."""
        self._path, self._end = Path(directory).absolute() / FILE, 0  # absolute for workers that run in another folder
        self._ids = set(_read_compressed(Path(directory), []))

    def update(self) -> set[str]:
        """Read the records that were appended since the last call, and return all ids."""
        if self._path.is_file():
            with self._path.open("rb") as file:
                file.seek(self._end)
                content = file.read()
            self._ids |= _parse(content, self._path, []).keys()
            self._end += content.rfind(b"\n") + 1  # a last record without its newline is read again
        return self._ids


def by_trial(directory: Path | str) -> dict[str, Record]:
    """Return the records by trial id, records of the compressed file first; none if the folder has no records."""
    left_out: list[str] = []
    records = _by_trial(Path(directory), left_out)
    for reason in left_out:
        warnings.warn(reason, Notice, stacklevel=2)
    return records


def _by_trial(directory: Path, left_out: list[str]) -> dict[str, Record]:
    records, plain = _read_compressed(directory, left_out), directory / FILE
    if plain.is_file():
        records |= _parse(plain.read_bytes(), plain, left_out)
    return records


def _read_compressed(directory: Path, left_out: list[str]) -> dict[str, Record]:
    compressed = directory / COMPRESSED
    if not compressed.is_file():
        return {}
    try:
        lines = gzip.decompress(compressed.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{compressed}: not a complete gzip file ({error}); copy it again") from error
    return _parse(lines, compressed, left_out)


def _parse(content: bytes, path: Path, left_out: list[str]) -> dict[str, Record]:
    """Return the records of a file by trial id; a line about each one with a field of another type is added to ``left_out``."""
    *lines, last = content.split(b"\n")
    lines += [last] * _is_whole(last)
    records: dict[str, Record] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue  # an editor may add blank lines
        place = f"{path}, line {number}"
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{place}: not JSON ({error}); delete that line and run the same command again") from error
        if not isinstance(record, dict):
            raise InputError(f"{place}: a JSON {type(record).__name__}, not an object; delete that line and run the same command again")
        _check_fields(record, place)
        if reason := other_type(record):
            left_out.append(f"{place}: {reason}; the record is left out")
        else:
            records[record["trial"]] = record
    return records


def _check_fields(record: Mapping[str, Any], place: str) -> None:
    if missing := [field for field in FIELDS if field not in record]:
        raise InputError(f"{place}: the record lacks {', '.join(missing)}; it needs all fields of kd_env.benchmark.records.FIELDS")


def _drop_torn_line(file: BinaryIO) -> None:
    if file.seek(0, os.SEEK_END) == 0:
        return
    file.seek(-1, os.SEEK_END)
    if file.read(1) == b"\n":
        return
    file.seek(0)  # a killed writer left a part of a line; only then read the whole file
    content = file.read()
    end = content.rfind(b"\n") + 1
    if _is_whole(content[end:]):
        file.write(b"\n")
    else:
        file.truncate(end)


def _is_whole(line: bytes) -> bool:
    """Return whether a line without its newline is a whole record."""
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False
