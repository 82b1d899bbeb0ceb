"""Find the complete and partial shards of a bank on disk, so that a stopped build can continue."""

from __future__ import annotations

import shutil
from pathlib import Path


class FinishedShards:
    """A list of finished shards, one per line of ``done.txt`` in the folder of a build.

    A line ``SHARD: N`` says that the first N batches of a shard are on disk.
    """

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
        self.path.write_text("".join(f"{line}\n" for line in lines))
        self._shards = set(lines[1:])
        begun = [line.rpartition(": ") for line in lines[1:] if ": " in line]
        self._begun = {shard: int(batches) for shard, _, batches in begun}  # of several lines of a shard, the last

    def __contains__(self, shard: str) -> bool:
        """Whether the shard was finished when the list was read."""
        return shard in self._shards

    def batches(self, shard: str) -> int:
        """Return the number of batches of a shard that were on disk when the list was read."""
        return self._begun.get(shard, 0)

    def add_batches(self, shard: str, batches: int) -> None:
        """Record that the first ``batches`` batches of the shard are on disk."""
        self.add(f"{shard}: {batches}")

    def add(self, shard: str) -> None:
        """Note that the shard is on disk."""
        with self.path.open("a") as file:
            file.write(f"{shard}\n")
