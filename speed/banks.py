"""Compare the knowledge bank with tensor files. In: the number of examples. Out: rows for opening, memory and gathering."""

from __future__ import annotations

import gc
import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from safetensors.torch import load_file, save_file

from kd_env.bank.bank import KnowledgeBank
from kd_env.bank.fingerprint import FORMAT, describe
from speed.measure import Row, Subject, clock, compare, rows

TEACHERS, CLASSES, WIDTH, BATCH = 4, 4, 4, 32
CONTENT = "content"


@dataclass(frozen=True)
class Storage:
    """A file format for the teachers' outputs."""

    name: str
    open: Callable[[], Any]
    gather: Callable[[Any, np.ndarray], object]


def bank(examples: int, turns: int) -> list[Row]:
    """Write the same logits and features in three formats, and read them in turns. The files are in the system's cache."""
    title = f"Knowledge bank: {examples:,} examples, K={TEACHERS}, C={CLASSES}, features of {WIDTH} a teacher"
    draws = [np.random.default_rng(i).integers(examples, size=BATCH) for i in range(500)]
    with tempfile.TemporaryDirectory(prefix="kd-env-speed-") as folder:
        size = _write(Path(folder), examples)
        storages = (
            Storage("KnowledgeBank", lambda: KnowledgeBank(Path(folder) / "bank"), lambda bank, draw: bank.gather("train", draw)),
            Storage("safetensors load_file", lambda: load_file(Path(folder) / "outputs.safetensors"), _gather),
            Storage("torch.load", lambda: torch.load(Path(folder) / "outputs.pt", weights_only=True), _gather),
        )
        opened = np.array([[_open(storage, draws) for storage in storages] for _ in range(turns + 1)])[1:]  # [turns, storages, 3]
        table = rows(title, [Subject(f"{storage.name}: open", storage.open) for storage in storages], "ms", opened[:, :, 0])
        for column, when in enumerate(("opened", f"after {BATCH * len(draws):,} random rows"), start=1):
            subjects = [Subject(f"{storage.name}: resident, {when}", storage.open, against=CONTENT) for storage in storages]
            content = np.full((turns, 1), size)
            memory = rows(title, [Subject(CONTENT, gc.collect), *subjects], "MB", np.hstack([content, opened[:, :, column]]))
            table += memory[column - 1 :]  # the size of the content is listed once
        return table + _gathering(title, storages, draws, turns)


def _gathering(title: str, storages: Sequence[Storage], draws: Sequence[np.ndarray], turns: int) -> list[Row]:
    def gather_all(storage: Storage) -> Callable[[], object]:
        opened = storage.open()
        return lambda: [storage.gather(opened, draw) for draw in draws]

    subjects = [Subject(f"{storage.name}: gather {BATCH} random rows, warm", gather_all(storage), len(draws)) for storage in storages]
    return compare(title, subjects, "µs", turns)


def _gather(outputs: dict[str, torch.Tensor], draw: np.ndarray) -> object:
    index = torch.from_numpy(draw)
    return outputs["logits"][index], torch.split(outputs["features"][index], WIDTH, 1)


def _open(storage: Storage, draws: Sequence[np.ndarray]) -> tuple[float, float, float]:
    """Return the time to open in ms, and the growth of the resident memory in MB after opening and after gathering ``draws``."""
    gc.collect()
    before, start = _resident(), clock()
    opened = storage.open()
    seconds, growth = clock() - start, _resident() - before
    for draw in draws:
        storage.gather(opened, draw)
    return seconds * 1e3, growth, _resident() - before


def _resident() -> float:
    return float(psutil.Process().memory_info().rss) / 1e6


def _write(folder: Path, examples: int) -> float:
    """Write the same content in three formats and return its size in MB."""
    rng = np.random.default_rng(0)
    shapes = {"logits": (examples, TEACHERS, CLASSES), "features": (examples, TEACHERS * WIDTH)}
    outputs = {name: rng.random(shape, dtype=np.float32) for name, shape in shapes.items()}
    (folder / "bank").mkdir()
    for split, count in {"train": examples, "reward": 1, "validation": 1}.items():
        for name, values in outputs.items():
            np.save(folder / "bank" / f"{split}.{name}.npy", values[:count])
    meta = {
        "format": FORMAT,
        "fingerprint": "speed",
        "task": "speed",
        "teachers": [f"teacher{k}" for k in range(TEACHERS)],
        "widths": [WIDTH] * TEACHERS,
        "layers": False,
        "files": {path.name: describe(path) for path in sorted((folder / "bank").glob("*.npy"))},
    }
    (folder / "bank" / "bank.json").write_text(json.dumps(meta))
    tensors = {name: torch.from_numpy(values) for name, values in outputs.items()}
    save_file(tensors, folder / "outputs.safetensors")
    torch.save(tensors, folder / "outputs.pt")
    return sum(values.nbytes for values in outputs.values()) / 1e6
