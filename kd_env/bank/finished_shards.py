"""The shards of a bank that are complete on disk, so that a build that was stopped can carry on."""

from __future__ import annotations

import shutil
from pathlib import Path


class FinishedShards:
    """A list of finished shards, one per line of ``done.txt`` in the folder of a build."""

    def __init__(self, folder: Path, identity: str) -> None:
        """Read the list in ``folder``, or clear the folder and begin a list if it belongs to another build.

        Args:
            identity: says what is built.
        """
        self.path = folder / "done.txt"
        lines = self.path.read_text().split("\n")[:-1] if self.path.is_file() else []  # text after the last newline is torn
        if lines[:1] != [identity]:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            lines = [identity]
            self.path.write_text(f"{identity}\n")
        self._shards = set(lines[1:])

    def __contains__(self, shard: str) -> bool:
        """Whether the shard was finished when the list was read."""
        return shard in self._shards

    def add(self, shard: str) -> None:
        """Note that the shard is on disk."""
        with self.path.open("a") as file:
            file.write(f"{shard}\n")
