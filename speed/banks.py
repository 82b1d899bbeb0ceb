"""The knowledge bank beside tensor files that hold the same. In: how many examples. Out: opening, memory and gathering, three ways."""

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
class Way:
    """A way to keep what teachers say."""

    name: str
    open: Callable[[], Any]
    gather: Callable[[Any, np.ndarray], object]


def bank(examples: int, turns: int) -> list[Row]:
    """Write the same logits and features three times, then read them in turn, from files that the system has in its cache."""
    title = f"Knowledge bank: {examples:,} examples, K={TEACHERS}, C={CLASSES}, features of {WIDTH} a teacher"
    draws = [np.random.default_rng(i).integers(examples, size=BATCH) for i in range(500)]
    with tempfile.TemporaryDirectory(prefix="kd-env-speed-") as folder:
        size = _write(Path(folder), examples)
        ways = (
            Way("KnowledgeBank", lambda: KnowledgeBank(Path(folder) / "bank"), lambda bank, draw: bank.gather("train", draw)),
            Way("safetensors load_file", lambda: load_file(Path(folder) / "said.safetensors"), _gather),
            Way("torch.load", lambda: torch.load(Path(folder) / "said.pt", weights_only=True), _gather),
        )
        opened = np.array([[_open(way, draws) for way in ways] for _ in range(turns + 1)])[1:]  # [turns, ways, 3]
        made = rows(title, [Subject(f"{way.name}: open", way.open) for way in ways], "ms", opened[:, :, 0])
        for column, when in enumerate(("opened", f"after {BATCH * len(draws):,} random rows"), start=1):
            subjects = [Subject(f"{way.name}: resident, {when}", way.open, against=CONTENT) for way in ways]
            content = np.full((turns, 1), size)
            memory = rows(title, [Subject(CONTENT, gc.collect), *subjects], "MB", np.hstack([content, opened[:, :, column]]))
            made += memory[column - 1 :]  # what the content is, once
        return made + _gathering(title, ways, draws, turns)


def _gathering(title: str, ways: Sequence[Way], draws: Sequence[np.ndarray], turns: int) -> list[Row]:
    def every_draw(way: Way) -> Callable[[], object]:
        opened = way.open()
        return lambda: [way.gather(opened, draw) for draw in draws]

    subjects = [Subject(f"{way.name}: gather {BATCH} random rows, warm", every_draw(way), len(draws)) for way in ways]
    return compare(title, subjects, "µs", turns)


def _gather(said: dict[str, torch.Tensor], draw: np.ndarray) -> object:
    index = torch.from_numpy(draw)
    return said["logits"][index], torch.split(said["features"][index], WIDTH, 1)


def _open(way: Way, draws: Sequence[np.ndarray]) -> tuple[float, float, float]:
    """Milliseconds to open; growth of the resident set in MB once opened, and after gathering ``draws``."""
    gc.collect()
    before, start = _resident(), clock()
    opened = way.open()
    taken, grown = clock() - start, _resident() - before
    for draw in draws:
        way.gather(opened, draw)
    return taken * 1e3, grown, _resident() - before


def _resident() -> float:
    return float(psutil.Process().memory_info().rss) / 1e6


def _write(folder: Path, examples: int) -> float:
    """The same content in three formats; its size in MB."""
    rng = np.random.default_rng(0)
    shapes = {"logits": (examples, TEACHERS, CLASSES), "features": (examples, TEACHERS * WIDTH)}
    said = {name: rng.random(shape, dtype=np.float32) for name, shape in shapes.items()}
    (folder / "bank").mkdir()
    for split, count in {"train": examples, "reward": 1, "validation": 1}.items():
        for name, values in said.items():
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
    tensors = {name: torch.from_numpy(values) for name, values in said.items()}
    save_file(tensors, folder / "said.safetensors")
    torch.save(tensors, folder / "said.pt")
    return sum(values.nbytes for values in said.values()) / 1e6
