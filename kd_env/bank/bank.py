"""The knowledge bank: the outputs of every teacher for every example, computed once and read from memory-mapped arrays.

Arrays have one row per example, so that opening a bank costs nothing and a batch is one gather. A bank is a folder of plain ``.npy`` files
and a ``bank.json``. It is written beside its place and moved there when it is complete, so that a partial bank is never read.
"""

from __future__ import annotations

import json
import re
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from kd_env.bank.blocks import CheckedBlocks, checksum_file
from kd_env.bank.build import ProgressCallback, build
from kd_env.bank.fingerprint import FORMAT, describe, fingerprint, meta_checksum
from kd_env.bank.shards import MapShards, one_after_another
from kd_env.errors import InputError, Notice
from kd_env.knowledge.knowledge import EXTRA_OUTPUTS, TRAIN_ONLY
from kd_env.models.stages import output_of, request, requested
from kd_env.paths import cache_dir, locked, naming, require_file
from kd_env.tasks import Task
from kd_env.tasks.task import SPLITS
from kd_env.teachers import Pool
from kd_env.teachers.teacher import Drift
from kd_env.types import TeacherShapes


class TeacherOutputs(NamedTuple):
    """Outputs of the teachers for some examples."""

    logits: np.ndarray  # [B, K, C]
    features: tuple[np.ndarray, ...]  # K x [B, D_k]
    layers: tuple[np.ndarray, ...] = ()  # K x [B, L_k, D_k], where they were asked for
    attention: tuple[np.ndarray, ...] = ()  # K x [B, 2, T_k, T_k]
    maps: tuple[np.ndarray, ...] = ()  # K x [B, D_k, h_k, w_k]
    stages: tuple[dict[str, np.ndarray], ...] = ()  # K x by stage, [B, D_k, h_k, w_k]


DAMAGE = (
    FileNotFoundError, NotADirectoryError, IsADirectoryError, KeyError, TypeError, ValueError, AttributeError, RecursionError,
)  # fmt: skip
"""Errors that say that a file is missing or holds something else, unlike errors of the moment."""


class DamagedBankError(Exception):
    """The folder is not a complete bank of this format; it can be built again."""


class KnowledgeBank:
    """An open bank of the splits ``train``, ``reward`` and ``validation``; ``test`` is never in a bank.

    Attributes:
        directory: the folder.
        meta: the content of ``bank.json``.
        teachers: names of the K teachers.
        widths: D_k, the width of each teacher's features.
        half: the arrays are float16.
        drift: how the teachers change during a run; the arrays hold their outputs before the change.
        keeps: what is kept besides logits and features, of ``layers``, ``attention``, ``maps`` and ``maps.STAGE``.
        stages: stages of each teacher whose feature maps are kept by name.
    """

    def __init__(self, directory: Path) -> None:
        """Open ``directory`` and check its files.

        Raises:
            DamagedBankError: a file is missing, has another size or shape, or its sampled checksum differs.
            OSError: a file cannot be read at the moment; that says nothing about its content.
        """
        self.directory = directory
        try:
            self.meta: dict[str, Any] = json.loads((directory / "bank.json").read_text())
            if self.meta.get("checksum") not in (None, meta_checksum(self.meta)):  # banks of older versions have none
                raise DamagedBankError(f"{directory}: bank.json has changed since it was written")
            if self.meta["format"] != FORMAT:
                raise DamagedBankError(f"format {self.meta['format']}, this version reads {FORMAT}")
            self.teachers: tuple[str, ...] = tuple(self.meta["teachers"])
            self.widths: list[int] = self.meta["widths"]
            self.half = bool(self.meta.get("half"))
            self.drift = None if (drift := self.meta.get("drift")) is None else Drift(drift["at"], tuple(drift["roles"]))
            kept = [output for output in EXTRA_OUTPUTS if self.meta.get(output)]
            self.keeps = frozenset([*kept, *map(request, self.meta.get("stages", ()))])
            self.stages: tuple[tuple[str, ...], ...] = tuple(map(tuple, self.meta.get("teacher_stages") or [()] * len(self.teachers)))
            outputs = ["logits", "features", *(f"{output}.{k}" for output in kept for k in range(len(self.teachers)))]
            outputs += [f"{request(stage)}.{k}" for k, stages in enumerate(self.stages) for stage in stages]
            of_all = [output for output in outputs if output_of(output) not in TRAIN_ONLY]
            kept_of = {split: outputs if split == "train" else of_all for split in SPLITS[:3]}
            names = [f"{split}.{output}.npy" for split, outputs in kept_of.items() for output in outputs]
            self._arrays = {name: _open(directory / name, self.meta["files"][name]) for name in names}
            self._require_consistent()
            with_checksums = [name for name in names if checksum_file(Path(name)).name in self.meta["files"]]  # older banks have none
            self._blocks = {name: CheckedBlocks(directory / name, self._arrays[name]) for name in with_checksums}
        except DAMAGE as error:
            raise DamagedBankError(f"{directory}: {error}") from None
        self._ends = np.cumsum(self.widths)[:-1]

    def _require_consistent(self) -> None:
        """Check that the arrays have the numbers of teachers and the widths that ``bank.json`` says."""
        for split in SPLITS[:3]:
            logits, features = self._arrays[f"{split}.logits.npy"], self._arrays[f"{split}.features.npy"]
            numbers = {logits.shape[1], len(self.teachers), len(self.widths)}
            if len(numbers) > 1 or features.shape != (len(logits), sum(self.widths)):
                raise ValueError(f"bank.json and the arrays of {split} are of different teachers")

    @property
    def fingerprint(self) -> str:
        """Hash of teachers, content of the task and settings."""
        return str(self.meta["fingerprint"])

    @property
    def num_teachers(self) -> int:
        """Number of teachers K."""
        return len(self.teachers)

    def size(self, split: str) -> int:
        """Return the number of examples of ``split``."""
        return len(self._arrays[f"{split}.logits.npy"])

    def gather(self, split: str, rows: np.ndarray | slice, extra: frozenset[str] = frozenset()) -> TeacherOutputs:
        """Copy some rows out of the memory map, as float32.

        Args:
            rows: an index array, which gives new arrays, or a slice, which may give views.
            extra: what to return besides logits and features, of :attr:`keeps`.

        Raises:
            InputError: a part of a file that is read for the first time has changed since it was written.
        """

        def gathered(output: str) -> np.ndarray:
            name = f"{split}.{output}.npy"
            if name in self._blocks:
                self._blocks[name].check(rows)
            return self._arrays[name][rows].astype(np.float32, copy=False)

        plain = [output for output in extra if "." not in output]
        outputs = {output: tuple(gathered(f"{output}.{k}") for k in range(self.num_teachers)) for output in plain}
        stages: tuple[dict[str, np.ndarray], ...] = ()
        if len(plain) < len(extra):
            stages = tuple(
                {stage: gathered(name) for stage, name in requested(names, extra).items()}
                for names in ({stage: f"maps.{stage}.{k}" for stage in stages} for k, stages in enumerate(self.stages))
            )
        features = tuple(np.split(gathered("features"), self._ends, axis=1))
        return TeacherOutputs(gathered("logits"), features, **outputs, stages=stages)

    def scores(self, task: Task) -> dict[str, float]:
        """Return the metric of each teacher on the validation split of ``task``, by the teachers' names."""
        predictions = self.gather("validation", slice(None)).logits.argmax(2)  # [N, K]
        return {name: task.score(predictions[:, k], task.validation.labels) for k, name in enumerate(self.teachers)}

    def holds(self, output: str) -> bool:
        """Return whether an output is kept, as named in :attr:`keeps`; a stage that is kept with all others counts too."""
        return output in self.keeps or all(output in map(request, stages) for stages in self.stages)

    def shape(self, output: str, teacher: int) -> tuple[int, ...]:
        """Return the shape per example of an extra output of a teacher, such as ``(L_k, D_k)`` of ``layers``."""
        return self._arrays[f"train.{output}.{teacher}.npy"].shape[1:]

    @property
    def shapes(self) -> TeacherShapes:
        """Shapes of the teachers' features, layers and maps."""

        def map_shape(output: str, teacher: int) -> tuple[int, int, int]:
            channels, height, width = self.shape(output, teacher)
            return channels, height, width

        layers = [self.shape("layers", k) for k in range(self.num_teachers)] if "layers" in self.keeps else []
        maps = tuple(map_shape("maps", k) for k in range(self.num_teachers)) if "maps" in self.keeps else ()
        stages = tuple({stage: map_shape(f"maps.{stage}", k) for stage in stages} for k, stages in enumerate(self.stages))
        return TeacherShapes(tuple(self.widths), tuple((depth, width) for depth, width in layers), maps, stages)


def open_bank(
    task: Task,
    pool: Pool,
    directory: Path | None = None,
    progress: ProgressCallback | None = None,
    keep: frozenset[str] = frozenset(),
    half: bool = False,
    map_shards: MapShards = one_after_another,
) -> KnowledgeBank:
    """Open the bank of ``task`` and ``pool``. It is built if there is none, or if it is damaged.

    Args:
        directory: where it is kept; by default a folder of the cache named by task and fingerprint.
        progress: called while it is built.
        keep: what to keep besides logits and features, of ``layers``, ``attention``, ``maps``, ``maps.STAGE`` and ``maps.all``; a bank
            that keeps more is used too.
        half: build it in float16, half the size; an existing bank is used in either precision.
        map_shards: runs the teachers on the parts of a bank that is built; by default here, one part after the other.

    Raises:
        InputError: ``directory`` holds a bank of other teachers, another task or other settings, or something that is not a bank.
    """
    identity = fingerprint(task, pool, keep, half)
    task_part = re.sub(r"[^A-Za-z0-9_]+", "-", task.name)[:80].strip("-")  # the pool's name is left out: one pool has several spellings
    place = (directory or cache_dir() / "banks" / f"{task_part}-{identity[:16]}").resolve()
    if place.exists() and not place.is_dir():
        raise InputError(f"{place} is a file; a bank is a folder, name another place")
    place.parent.mkdir(parents=True, exist_ok=True)
    with locked(place):
        if place.exists() and any(place.iterdir()):
            foreign = [path.name for path in place.iterdir() if path.suffix != ".npy" and path.name != "bank.json"]
            if directory is not None and (foreign or not (place / "bank.json").exists()):
                raise InputError(f"{place} holds something that is not a bank ({', '.join(foreign) or 'no bank.json'}); name a new folder")
            for path in place.iterdir():
                require_file(path)
            try:
                bank = KnowledgeBank(place)
            except DamagedBankError as error:
                warnings.warn(f"bank is damaged and is built again: {error}", Notice, stacklevel=2)
            else:
                _require_same(bank, task, pool, keep)
                return bank
        build(place, task, pool, keep, half, progress, map_shards)
    return KnowledgeBank(place)


def _require_same(bank: KnowledgeBank, task: Task, pool: Pool, keep: frozenset[str]) -> None:
    """Check that an existing bank is of ``task`` and ``pool`` and has what to ``keep``."""
    advice = "name another folder or delete it"
    if missing := sorted(output for output in keep if not bank.holds(output)):
        reason = f"holds no {' and no '.join(missing)}"
        stages = ";".join(sorted(output.partition(".")[2] for output in keep if "." in output))
        options = [f"--{output}" for output in sorted(keep) if "." not in output] + [f'--stages "{stages}"'] * bool(stages)
        advice += f", and make it with kd-env bank {' '.join(options)}"
    elif bank.fingerprint == fingerprint(task, pool, bank.keeps, bank.half):
        return
    elif bank.meta["task"] != task.fingerprint:
        reason = f"was made from other data than task {task.name!r}"
    elif bank.teachers != pool.names:
        reason = f"holds the teachers {', '.join(bank.teachers)}, not {', '.join(pool.names)}"
        advice = "name the same with --teachers, or another folder"
    elif bank.drift != pool.drift:
        reason = "is of teachers that change in another way during a run"
    else:
        reason = "was made from other weights of these teachers"
    raise InputError(f"bank {bank.directory} {reason}; {advice}")


def _open(path: Path, expected: dict[str, Any]) -> np.ndarray:
    if describe(path) != expected:
        raise DamagedBankError(f"{path}: the content has changed since it was written")
    with naming(path):
        return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
