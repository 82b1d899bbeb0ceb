"""The knowledge bank: what every teacher says about every example, computed once.

In: a task and a pool. Out: memory-mapped arrays, one row an example, so that opening costs nothing and a batch is one gather. A folder
of plain ``.npy`` files and a ``bank.json``; written beside its place and moved in whole, so a half-written bank is never seen.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from filelock import FileLock
from numpy.lib.format import open_memmap

from kd_env.errors import InputError
from kd_env.paths import cache_dir
from kd_env.tasks import Task
from kd_env.tasks.task import SPLITS
from kd_env.teachers import Pool

FORMAT = 1
BUILD_BATCH = 256
_BLOCK, _BLOCKS = 1 << 16, 64

Progress = Callable[[str, int, int], None]
"""Called with a teacher's name, the examples done and all of them."""


class Rows(NamedTuple):
    """What the teachers say about some examples."""

    logits: np.ndarray  # [B, K, C]
    features: tuple[np.ndarray, ...]  # K x [B, D_k]


class DamagedBankError(Exception):
    """The folder is not a whole bank of this format; it can be built again."""


class KnowledgeBank:
    """An open bank. Splits ``train``, ``reward`` and ``validation``; ``test`` is never put into one."""

    def __init__(self, directory: Path) -> None:
        """Open ``directory`` and check its files.

        Raises:
            DamagedBankError: a file is missing, has another size or shape, or its sampled checksum differs.
        """
        self.directory = directory
        try:
            self.meta: dict[str, Any] = json.loads((directory / "bank.json").read_text())
            if self.meta["format"] != FORMAT:
                raise DamagedBankError(f"format {self.meta['format']}, this version reads {FORMAT}")
            self.teachers: tuple[str, ...] = tuple(self.meta["teachers"])
            self.widths: list[int] = self.meta["widths"]  # D_k
            names = [f"{split}.{what}.npy" for split in SPLITS[:3] for what in ("logits", "features")]
            self._arrays = {name: _open(directory / name, self.meta["files"][name]) for name in names}
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise DamagedBankError(f"{directory}: {error}") from None
        self._ends = np.cumsum(self.widths)[:-1]

    @property
    def fingerprint(self) -> str:
        """Hash of teachers, task content and settings."""
        return str(self.meta["fingerprint"])

    @property
    def num_teachers(self) -> int:
        """K."""
        return len(self.teachers)

    def size(self, split: str) -> int:
        """Number of examples of ``split``."""
        return len(self._arrays[f"{split}.logits.npy"])

    def gather(self, split: str, rows: np.ndarray | slice) -> Rows:
        """Copy some rows out of the map; an index array gives new arrays, a slice gives views."""
        features = self._arrays[f"{split}.features.npy"][rows]
        return Rows(self._arrays[f"{split}.logits.npy"][rows], tuple(np.split(features, self._ends, axis=1)))


def open_bank(task: Task, pool: Pool, directory: Path | None = None, progress: Progress | None = None) -> KnowledgeBank:
    """Open the bank of ``task`` and ``pool``; build it if there is none, or if it is damaged.

    Args:
        directory: where to keep it; by default a folder of the cache named by the fingerprint.

    Raises:
        InputError: ``directory`` holds a bank of other teachers, another task or other settings, or something that is no bank.
    """
    identity = fingerprint(task, pool)
    place = (directory or cache_dir() / "banks" / f"{pool.name.replace('/', '-')[:80]}-{identity[:16]}").resolve()
    if place.exists() and not place.is_dir():
        raise InputError(f"{place} is a file; a bank is a folder, name another place")
    place.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{place}.lock"):
        if place.exists() and any(place.iterdir()):
            if not (place / "bank.json").exists() and directory is not None:
                raise InputError(f"{place} holds something that is not a bank; name an empty or a new folder")
            try:
                bank = KnowledgeBank(place)
            except DamagedBankError:
                pass
            else:
                _refuse_other(bank, task, pool, identity)
                return bank
        _build(place, task, pool, identity, progress)
    return KnowledgeBank(place)


def fingerprint(task: Task, pool: Pool) -> str:
    """Hash of all that decides a bank's content."""
    parts = [str(FORMAT), task.fingerprint, *(f"{teacher.name}={teacher.fingerprint()}" for teacher in pool.teachers)]
    return hashlib.sha256("|".join(parts).encode()).hexdigest()


def _refuse_other(bank: KnowledgeBank, task: Task, pool: Pool, identity: str) -> None:
    if bank.fingerprint == identity:
        return
    if bank.meta["task"] != task.fingerprint:
        reason = f"was made from other data than task {task.name!r}"
    elif bank.teachers != pool.names:
        reason = f"holds the teachers {', '.join(bank.teachers)}, not {', '.join(pool.names)}"
    else:
        reason = "was made from other weights of these teachers"
    raise InputError(f"bank {bank.directory} {reason}; name another folder or delete it")


def _build(place: Path, task: Task, pool: Pool, identity: str, progress: Progress | None) -> None:
    partial = place.with_name(f".{place.name}.partial")  # ours alone: the lock is held
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        widths = [teacher(task.train.inputs[:1]).features.shape[-1] for teacher in pool.teachers]
        for name in SPLITS[:3]:
            _write_split(partial, name, task, pool, widths, progress)
        files = {path.name: _describe(path) for path in sorted(partial.glob("*.npy"))}
        meta = {
            "format": FORMAT,
            "fingerprint": identity,
            "task": task.fingerprint,
            "teachers": pool.names,
            "widths": widths,
            "files": files,
        }
        (partial / "bank.json").write_text(json.dumps(meta, indent=1))
        shutil.rmtree(place, ignore_errors=True)
        partial.replace(place)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write_split(partial: Path, name: str, task: Task, pool: Pool, widths: list[int], progress: Progress | None) -> None:
    split = getattr(task, name)
    shape = (len(split), len(pool.teachers), task.num_classes)
    logits = open_memmap(partial / f"{name}.logits.npy", "w+", np.float32, shape)
    features = open_memmap(partial / f"{name}.features.npy", "w+", np.float32, (len(split), sum(widths)))
    ends = np.cumsum([0, *widths])
    for k, teacher in enumerate(pool.teachers):
        for start in range(0, len(split), BUILD_BATCH):
            rows = slice(start, min(start + BUILD_BATCH, len(split)))
            said = teacher(split.inputs[rows])
            if said.logits.shape != (rows.stop - start, task.num_classes):
                raise InputError(
                    f"teacher {teacher.name!r} gave logits of shape {tuple(said.logits.shape)} for {rows.stop - start} examples of "
                    f"{task.num_classes} classes; it was made for another task"
                )
            if said.features.shape != (rows.stop - start, widths[k]):
                raise InputError(
                    f"teacher {teacher.name!r} gave features of shape {tuple(said.features.shape)} for {rows.stop - start} examples, "
                    f"expected ({rows.stop - start}, {widths[k]}); features are [B, D] with one D"
                )
            for what, values in (("logits", said.logits), ("features", said.features)):
                if not values.isfinite().all():
                    bad = start + int((~values.isfinite()).flatten(1).any(1).nonzero()[0])
                    raise InputError(
                        f"teacher {teacher.name!r}: {what} of {name} example {bad} are not finite; mend or leave out that teacher"
                    )
            logits[rows, k] = said.logits.numpy()
            features[rows, ends[k] : ends[k + 1]] = said.features.numpy()
            if progress:
                progress(f"{teacher.name}, {name}", rows.stop, len(split))
    logits.flush()
    features.flush()


def _open(path: Path, expected: dict[str, Any]) -> np.ndarray:
    if path.stat().st_size != expected["bytes"]:
        raise DamagedBankError(f"{path}: {path.stat().st_size} bytes, expected {expected['bytes']}")
    if _sampled_checksum(path) != expected["checksum"]:
        raise DamagedBankError(f"{path}: the content has changed since it was written")
    return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))


def _describe(path: Path) -> dict[str, Any]:
    return {"bytes": path.stat().st_size, "checksum": _sampled_checksum(path)}


def _sampled_checksum(path: Path) -> str:
    """Hash of up to 64 blocks of 64 KiB spread evenly: all of a small file, a fair sample of a large one, in milliseconds."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        size = path.stat().st_size
        for start in np.unique(np.linspace(0, max(size - _BLOCK, 0), min(_BLOCKS, -(-size // _BLOCK)), dtype=np.int64)):
            file.seek(int(start))
            digest.update(file.read(_BLOCK))
    return digest.hexdigest()
