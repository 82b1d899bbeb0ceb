"""The knowledge bank: what every teacher says about every example, computed once.

In: a task and a pool. Out: memory-mapped arrays, one row an example, so that opening costs nothing and a batch is one gather. A folder
of plain ``.npy`` files and a ``bank.json``; written beside its place and moved in whole, so a half-written bank is never seen.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from filelock import FileLock

from kd_env.bank.build import FORMAT, Progress, build, describe, fingerprint
from kd_env.errors import InputError
from kd_env.knowledge.knowledge import EXTRA_OUTPUTS
from kd_env.paths import cache_dir
from kd_env.tasks import Task
from kd_env.tasks.metrics import METRICS
from kd_env.tasks.task import SPLITS
from kd_env.teachers import Pool
from kd_env.types import TeacherShapes


class TeacherOutputs(NamedTuple):
    """What the teachers say about some examples."""

    logits: np.ndarray  # [B, K, C]
    features: tuple[np.ndarray, ...]  # K x [B, D_k]
    layers: tuple[np.ndarray, ...] = ()  # K x [B, L_k, D_k], where they were asked for
    attention: tuple[np.ndarray, ...] = ()  # K x [B, 2, T_k, T_k]


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
            self.half = bool(self.meta.get("half"))
            self.keeps = frozenset(part for part in EXTRA_OUTPUTS if self.meta.get(part))
            said = ["logits", "features", *(f"{part}.{k}" for part in self.keeps for k in range(len(self.teachers)))]
            names = [f"{split}.{what}.npy" for split in SPLITS[:3] for what in said if split == "train" or "attention" not in what]
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

    def gather(self, split: str, rows: np.ndarray | slice, extra: frozenset[str] = frozenset()) -> TeacherOutputs:
        """Copy some rows out of the map, float32; an index array gives new arrays, a slice may give views.

        ``extra`` names more that the bank keeps.
        """

        def some(what: str) -> np.ndarray:
            return self._arrays[f"{split}.{what}.npy"][rows].astype(np.float32, copy=False)

        more = {part: tuple(some(f"{part}.{k}") for k in range(self.num_teachers)) for part in extra}
        return TeacherOutputs(some("logits"), tuple(np.split(some("features"), self._ends, axis=1)), **more)

    def scores(self, task: Task) -> dict[str, float]:
        """Metric of each teacher on the validation split of the task that was asked about."""
        said = self.gather("validation", slice(None)).logits.argmax(2)  # [N, K]
        metric = METRICS[task.metric]
        return {name: metric(said[:, k], task.validation.labels, task.num_classes) for k, name in enumerate(self.teachers)}

    def shape(self, output: str, teacher: int) -> tuple[int, ...]:
        """Shape per example of an extra output of teacher k: ``(L_k, D_k)`` of ``layers``, ``(2, T_k, T_k)`` of ``attention``."""
        return self._arrays[f"train.{output}.{teacher}.npy"].shape[1:]

    @property
    def shapes(self) -> TeacherShapes:
        """Shapes of the teachers' features and layers."""
        layers = [self.shape("layers", k) for k in range(self.num_teachers)] if "layers" in self.keeps else []
        return TeacherShapes(tuple(self.widths), tuple((depth, width) for depth, width in layers))


def open_bank(
    task: Task,
    pool: Pool,
    directory: Path | None = None,
    progress: Progress | None = None,
    keep: frozenset[str] = frozenset(),
    half: bool = False,
) -> KnowledgeBank:
    """Open the bank of ``task`` and ``pool``; build it if there is none, or if it is damaged.

    Args:
        directory: where to keep it; by default a folder of the cache named by task and fingerprint.
        keep: what to keep beyond logits and features: ``layers`` and ``attention``; a bank that has more serves too.
        half: build it in float16, half the size; one that is there serves in either.

    Raises:
        InputError: ``directory`` holds a bank of other teachers, another task or other settings, or something that is no bank.
    """
    identity = fingerprint(task, pool, keep, half)
    named = re.sub(r"[^A-Za-z0-9_]+", "-", task.name)[:80].strip("-")  # not by the pool's name: that may be spelled in several ways
    place = (directory or cache_dir() / "banks" / f"{named}-{identity[:16]}").resolve()
    if place.exists() and not place.is_dir():
        raise InputError(f"{place} is a file; a bank is a folder, name another place")
    place.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{place}.lock"):
        if place.exists() and any(place.iterdir()):
            strange = [path.name for path in place.iterdir() if path.suffix != ".npy" and path.name != "bank.json"]
            if directory is not None and (strange or not (place / "bank.json").exists()):
                raise InputError(f"{place} holds something that is not a bank ({', '.join(strange) or 'no bank.json'}); name a new folder")
            try:
                bank = KnowledgeBank(place)
            except DamagedBankError:
                pass
            else:
                _refuse_other(bank, task, pool, keep)
                return bank
        build(place, task, pool, keep, half, progress)
    return KnowledgeBank(place)


def _refuse_other(bank: KnowledgeBank, task: Task, pool: Pool, keep: frozenset[str]) -> None:
    mend = "name another folder or delete it"
    if keep - bank.keeps:
        reason = f"holds no {' and no '.join(sorted(keep - bank.keeps))}"
    elif bank.fingerprint == fingerprint(task, pool, bank.keeps, bank.half):
        return
    elif bank.meta["task"] != task.fingerprint:
        reason = f"was made from other data than task {task.name!r}"
    elif bank.teachers != pool.names:
        reason = f"holds the teachers {', '.join(bank.teachers)}, not {', '.join(pool.names)}"
        mend = "name the same with --teachers, or another folder"
    else:
        reason = "was made from other weights of these teachers"
    raise InputError(f"bank {bank.directory} {reason}; {mend}")


def _open(path: Path, expected: dict[str, Any]) -> np.ndarray:
    if describe(path) != expected:
        raise DamagedBankError(f"{path}: the content has changed since it was written")
    return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
