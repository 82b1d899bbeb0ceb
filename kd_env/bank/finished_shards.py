"""Find the complete and partial shards of a bank on disk, so that a stopped build can continue."""

from __future__ import annotations

import shutil
from pathlib import Path

from kd_env.paths import write_bytes


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
        text = self.path.read_text() if self.path.is_file() else ""
        lines = text.split("\n")[:-1]  # text after the last newline is torn
        if lines[:1] != [identity]:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            lines = [identity]
        if (complete := "".join(f"{line}\n" for line in lines)) != text:
            write_bytes(self.path, complete.encode())
        self._lines = set(lines[1:])
        partial = [line.rpartition(": ") for line in lines[1:] if ": " in line]
        self._batches_on_disk = {shard: int(batches) for shard, _, batches in partial}  # of several lines of a shard, the last

    def __contains__(self, shard: str) -> bool:
        """Whether the shard was finished when the list was read."""
        return shard in self._lines

    def batches(self, shard: str) -> int:
        """Return the number of batches of a shard that were on disk when the list was read."""
        return self._batches_on_disk.get(shard, 0)

    def add_batches(self, shard: str, batches: int) -> None:
        """Record that the first ``batches`` batches of the shard are on disk."""
        self.add(f"{shard}: {batches}")

    def add(self, shard: str) -> None:
        """Record that the shard is on disk."""
        with self.path.open("a") as file:
            file.write(f"{shard}\n")
