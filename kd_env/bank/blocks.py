"""Check the arrays of a bank while they are read. In: a file and the checksums of its blocks. Out: damage is named before it is used.

A check of whole arrays would make a large bank slow to open. So each block of 64 KiB has a CRC-32, which is compared when a row in the
block is read for the first time.
"""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np

from kd_env.errors import InputError

BLOCK = 1 << 16
SUFFIX = ".crc.npy"


def checksum_file(path: Path) -> Path:
    """Return the file that holds the checksums of the blocks of ``path``."""
    return path.with_suffix(SUFFIX)


def is_checksum_file(path: Path) -> bool:
    """Return whether a file of a bank holds the checksums of another."""
    return path.name.endswith(SUFFIX)


def write_checksums(path: Path) -> None:
    """Write the checksums of the blocks of a file beside it."""
    with path.open("rb") as file:
        checksums = [zlib.crc32(block) for block in iter(lambda: file.read(BLOCK), b"")]
    np.save(checksum_file(path), np.array(checksums, dtype=np.uint32))


class CheckedBlocks:
    """The blocks of an array's file, each of which is checked once."""

    def __init__(self, path: Path, array: np.ndarray) -> None:
        """Open the file.

        Args:
            path: the file of ``array``, a ``.npy`` file in C order.
            array: its content, ``[rows, ...]``.

        Raises:
            ValueError: the number of checksums is not that of the blocks.
        """
        self._path, self._bytes = path, np.memmap(path, np.uint8, "r")
        self._checksums: np.ndarray = np.load(checksum_file(path), allow_pickle=False)
        if len(self._checksums) != -(-len(self._bytes) // BLOCK):
            raise ValueError(f"{checksum_file(path)}: checksums of another file")
        self._unchecked = np.ones(len(self._checksums), dtype=np.bool_)
        self._num_unchecked = len(self._unchecked)
        self._num_rows, self._row_bytes = len(array), array.nbytes // max(len(array), 1)
        self._header_bytes = len(self._bytes) - array.nbytes

    def check(self, rows: np.ndarray | slice) -> None:
        """Check those blocks of some rows that were not checked before.

        Args:
            rows: an array of indices, none of them negative, or a slice.

        Raises:
            InputError: a block has changed since it was written.
        """
        if not self._num_unchecked:
            return
        numbers = (np.arange(*rows.indices(self._num_rows)) if isinstance(rows, slice) else rows).reshape(-1, 1)
        first = (self._header_bytes + numbers * self._row_bytes) // BLOCK
        last = (self._header_bytes + (numbers + 1) * self._row_bytes - 1) // BLOCK
        blocks = np.unique(np.minimum(first + np.arange(int((last - first).max(initial=0)) + 1), last))
        for block in blocks[self._unchecked[blocks]].tolist():
            if zlib.crc32(self._bytes[block * BLOCK : (block + 1) * BLOCK].tobytes()) != self._checksums[block]:
                raise InputError(f"{self._path}: the content has changed since it was written; delete the bank, it is built again")
            self._unchecked[block] = False
            self._num_unchecked -= 1
