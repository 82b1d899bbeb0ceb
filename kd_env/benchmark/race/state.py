"""Hold what has happened in a race, and keep it in a file, so that a race that was stopped goes on. In: a folder. Out: entries."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from kd_env.benchmark.race.candidates import Candidate
from kd_env.benchmark.race.score import Predictions
from kd_env.errors import InputError
from kd_env.paths import naming, partial_file

FILE = "race.json"


@dataclass
class Entry:
    """Students of one candidate that are taught together.

    Attributes:
        candidate: their candidate.
        seeds: their seeds.
        update: updates that each of them has had.
        lost: which of them have diverged.
        marks: predicted classes by rung and split, a list for each student.
        seconds: processor time of teaching and judging them.
    """

    candidate: Candidate
    seeds: list[int]
    update: int = 0
    lost: list[bool] = field(default_factory=list)
    marks: dict[str, dict[str, list[list[int]]]] = field(default_factory=dict)
    seconds: float = 0.0

    def predictions(self, rung: int) -> Predictions | None:
        """Return the predictions at the end of a rung of the students that have not diverged; ``None`` if there are none."""
        mark = self.marks.get(str(rung))
        if mark is None or all(self.lost):
            return None
        kept = np.flatnonzero(~np.array(self.lost))
        return {split: np.array(classes, dtype=np.int64)[kept] for split, classes in mark.items()}


class RaceState:
    """The entries of a race, in the order in which they began."""

    def __init__(self, folder: Path, identity: Mapping[str, Any]) -> None:
        """Read the race in ``folder``, or begin one.

        Raises:
            InputError: the folder holds another race.
        """
        self.folder, self.identity = folder, json.loads(json.dumps(identity))
        self.entries: list[Entry] = []
        self.budget: float | None = None  # in updates; a budget in seconds is converted once
        try:
            content = json.loads((folder / FILE).read_text())
        except FileNotFoundError:
            return
        except ValueError:
            raise InputError(f"{folder / FILE} is damaged; delete the folder {folder}") from None
        if content["identity"] != self.identity:
            different = sorted(
                name for name in {*self.identity, *content["identity"]} if _differs(name, content["identity"], self.identity)
            )
            raise InputError(f"{folder}: started by another command (other {', '.join(different)}); delete it, or name another --out")
        self.budget = content["budget"]
        self.entries = [Entry(**{**entry, "candidate": Candidate(**entry["candidate"])}) for entry in content["entries"]]

    @property
    def taught(self) -> int:
        """Number of updates that all students have had together."""
        return sum(entry.update * len(entry.seeds) for entry in self.entries)

    def entry(self, candidate: Candidate, seeds: Sequence[int]) -> Entry:
        """Return the entry of a candidate with these seeds; a new one if there is none."""
        for entry in self.entries:
            if entry.candidate == candidate and entry.seeds == list(seeds):
                return entry
        self.entries.append(Entry(candidate, list(seeds), lost=[False] * len(seeds)))
        return self.entries[-1]

    def of(self, candidate: Candidate) -> list[Entry]:
        """Return the entries of a candidate."""
        return [entry for entry in self.entries if entry.candidate == candidate]

    def predictions(self, candidate: Candidate, rung: int) -> Predictions | None:
        """Return the predictions of all students of a candidate at the end of a rung; ``None`` if all have diverged."""
        parts = [part for entry in self.of(candidate) if (part := entry.predictions(rung)) is not None]
        return {split: np.concatenate([part[split] for part in parts]) for split in parts[0]} if parts else None

    def place(self, entry: Entry) -> Path:
        """Return the folder of the state of an entry's students."""
        return self.folder / "racers" / str(self.entries.index(entry))

    def write(self) -> None:
        """Write the file, as a whole."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / FILE
        partial = partial_file(path)
        with naming(path):
            entries = [asdict(entry) for entry in self.entries]
            partial.write_text(json.dumps({"identity": self.identity, "budget": self.budget, "entries": entries}))
            partial.replace(path)


def _differs(name: str, one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return bool(one.get(name) != other.get(name))
