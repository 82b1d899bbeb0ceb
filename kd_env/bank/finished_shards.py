"""How far a build is, on disk. In: its folder and what it is a build of. Out: the steps that need not be done again."""

from __future__ import annotations

import shutil
from pathlib import Path


class FinishedShards:
    """Which shards of a build are on disk, a line each; what a build of something else left is cleared away."""

    def __init__(self, folder: Path, identity: str) -> None:
        """Read the list in ``folder``, or begin one."""
        self.path = folder / "done.txt"
        lines = self.path.read_text().split("\n")[:-1] if self.path.is_file() else []  # what follows the last newline is torn
        if lines[:1] != [identity]:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            lines = [identity]
            self.path.write_text(f"{identity}\n")
        self._steps = set(lines[1:])

    def __contains__(self, step: str) -> bool:
        """Whether the shard is done."""
        return step in self._steps

    def add(self, step: str) -> None:
        """The shard is on disk."""
        with self.path.open("a") as file:
            file.write(f"{step}\n")
