"""Compute what identifies a bank and its files: a hash of all that decides its content, and the size and checksum of each file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from kd_env.tasks import Task
from kd_env.teachers import Pool

FORMAT = 1
_BLOCK, _BLOCKS = 1 << 16, 64


def fingerprint(task: Task, pool: Pool, keep: frozenset[str] = frozenset(), half: bool = False) -> str:
    """Return the hash of all that decides a bank's content: settings, content of the task, and the teachers."""
    settings = ":".join([str(FORMAT), *sorted(keep), *(["half"] if half else [])])
    parts = [settings, task.fingerprint, *(f"{teacher.name}={teacher.fingerprint()}" for teacher in pool.teachers)]
    parts += [] if pool.drift is None else [str(pool.drift)]
    return hashlib.sha256("|".join(parts).encode()).hexdigest()


def meta_checksum(meta: Mapping[str, Any]) -> str:
    """Return the checksum of the content of ``bank.json`` without the entry that holds it."""
    content = json.dumps({name: value for name, value in meta.items() if name != "checksum"}, sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def describe(path: Path) -> dict[str, Any]:
    """Return a file's size and the checksum of up to 64 blocks of 64 KiB, spread evenly.

    That is all of a small file and a fair sample of a large one, in milliseconds.
    """
    digest = hashlib.sha256()
    size = path.stat().st_size
    with path.open("rb") as file:
        for start in np.unique(np.linspace(0, max(size - _BLOCK, 0), min(_BLOCKS, -(-size // _BLOCK)), dtype=np.int64)):
            file.seek(int(start))
            digest.update(file.read(_BLOCK))
    return {"bytes": size, "checksum": digest.hexdigest()}
