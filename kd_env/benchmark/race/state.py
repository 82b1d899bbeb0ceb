"""Store the state of a race in a file, so that a race that was stopped continues. In: a folder. Out: the entries of the race."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from kd_env.benchmark.race.candidates import Candidate
from kd_env.benchmark.race.score import Losses, Predictions
from kd_env.errors import InputError
from kd_env.paths import naming, partial_file
from kd_env.serialization import checksum

FILE = "race.json"


@dataclass
class Entry:
    """The state of students of one candidate that are taught together.

    Attributes:
        candidate: the candidate.
        seeds: seeds of the students.
        update: number of updates that each student has had at the end of its last rung.
        saved: number of updates of the students that are saved, 0 if none are.
        saved_diverged: whether each of these had diverged.
        diverged_at: whether each student had diverged, by index of the rung.
        classes: predicted classes by index of the rung and by split, ``[S, N]``.
        losses: losses by index of the rung and by split, ``[S]``.
        seconds: processor time of teaching and scoring the students.
    """

    candidate: Candidate
    seeds: list[int]
    update: int = 0
    saved: int = 0
    saved_diverged: list[bool] = field(default_factory=list)
    diverged_at: dict[str, list[bool]] = field(default_factory=dict)
    classes: dict[str, dict[str, list[list[int]]]] = field(default_factory=dict)
    losses: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def diverged(self) -> list[bool]:
        """Whether each student had diverged at the end of its last rung."""
        return self.diverged_at[max(self.diverged_at, key=int)] if self.diverged_at else [False] * len(self.seeds)

    def predictions(self, rung: int) -> Predictions | None:
        """Return the predictions at the end of a rung of the students that had not diverged; ``None`` if all had, or before that rung."""
        by_split, diverged = self.classes.get(str(rung)), self.diverged_at.get(str(rung), [])
        if by_split is None or all(diverged):
            return None
        return {split: np.array(classes, dtype=np.int64)[~np.array(diverged)] for split, classes in by_split.items()}

    def losses_of(self, rung: int) -> Losses | None:
        """Return the losses at the end of a rung of the students that had not diverged; ``None`` if all had, or before that rung."""
        by_split, diverged = self.losses.get(str(rung)), self.diverged_at.get(str(rung), [])
        if by_split is None or all(diverged):
            return None
        return {split: np.array(losses)[~np.array(diverged)] for split, losses in by_split.items()}


class RaceState:
    """The state of a race: its entries, in the order in which they started."""

    def __init__(self, folder: Path, identity: Mapping[str, Any]) -> None:
        """Read the state in ``folder``, or start a new one.

        Args:
            folder: folder of the race.
            identity: everything that decides the result of the race.

        Raises:
            InputError: the folder contains another race, or its file is damaged.
        """
        self.folder, self.identity = folder, json.loads(json.dumps(identity))
        self.entries: list[Entry] = []
        self.budget: float | None = None  # in updates; a budget in seconds is converted once
        try:
            content = json.loads((folder / FILE).read_text())
            intact = content.pop("checksum") == checksum({}, content)
        except FileNotFoundError:
            return
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            intact = False
        if not intact:
            raise InputError(f"{folder / FILE} is damaged; delete the folder {folder}")
        if content["identity"] != self.identity:
            saved = content["identity"]
            different = sorted(name for name in {*self.identity, *saved} if saved.get(name) != self.identity.get(name))
            raise InputError(f"{folder}: started by another command (other {', '.join(different)}); delete it, or name another --out")
        self.budget = content["budget"]
        self.entries = [Entry(**{**entry, "candidate": Candidate(**entry["candidate"])}) for entry in content["entries"]]

    @property
    def total_updates(self) -> int:
        """Sum of the updates of all students so far."""
        return sum(max(entry.update, entry.saved) * len(entry.seeds) for entry in self.entries)

    def entry(self, candidate: Candidate, seeds: Sequence[int]) -> Entry:
        """Return the entry of a candidate with these seeds. Add it if it does not exist."""
        for entry in self.entries:
            if entry.candidate == candidate and entry.seeds == list(seeds):
                return entry
        self.entries.append(Entry(candidate, list(seeds)))
        return self.entries[-1]

    def entries_of(self, candidate: Candidate) -> list[Entry]:
        """Return all entries of a candidate."""
        return [entry for entry in self.entries if entry.candidate == candidate]

    def predictions(self, candidate: Candidate, rung: int) -> Predictions | None:
        """Return the predictions of all students of a candidate at the end of a rung; ``None`` if all have diverged."""
        return _joined(entry.predictions(rung) for entry in self.entries_of(candidate))

    def losses(self, candidate: Candidate, rung: int) -> Losses | None:
        """Return the losses of all students of a candidate at the end of a rung; ``None`` if all have diverged."""
        return _joined(entry.losses_of(rung) for entry in self.entries_of(candidate))

    def folder_of(self, entry: Entry) -> Path:
        """Return the folder in which the students of an entry are saved, with one folder per number of updates."""
        return self.folder / "runs" / str(self.entries.index(entry))

    def students_of(self, entry: Entry) -> Path:
        """Return the folder of the saved students of an entry; earlier ones stay until the file is written."""
        return self.folder_of(entry) / str(entry.saved)

    def write(self) -> None:
        """Write the file, completely or not at all."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / FILE
        partial = partial_file(path)
        with naming(path):
            content = {"identity": self.identity, "budget": self.budget, "entries": [asdict(entry) for entry in self.entries]}
            partial.write_text(json.dumps({**content, "checksum": checksum({}, content)}))
            partial.replace(path)


def _joined(parts: Iterable[Mapping[str, np.ndarray] | None]) -> dict[str, np.ndarray] | None:
    """Return the values of the students of several entries together; ``None`` if there are none."""
    values = [part for part in parts if part is not None]
    return {split: np.concatenate([part[split] for part in values]) for split in values[0]} if values else None
