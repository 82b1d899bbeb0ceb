"""Each block of an array is checked when it is first read, and not again."""

import numpy as np
import pytest
from known_teachers import image_task, make_pool

from kd_env.bank import bank as bank_module
from kd_env.bank.bank import KnowledgeBank, open_bank
from kd_env.bank.blocks import BLOCK, CheckedBlocks, write_checksums
from kd_env.errors import InputError


@pytest.fixture(params=[3, BLOCK // 4, BLOCK], ids=["rows below a block", "rows of a block", "rows of four blocks"])
def stored(request, tmp_path):
    """A file of 40 rows, and a function that opens it."""
    path = tmp_path / "train.logits.npy"
    np.save(path, np.random.default_rng(0).normal(size=(40, request.param)).astype(np.float32))
    write_checksums(path)
    return path, lambda: CheckedBlocks(path, np.load(path, mmap_mode="r"))


def test_a_whole_file_passes(stored):
    _, opened = stored
    blocks = opened()
    blocks.check(np.array([3, 0, 39, 3]))
    blocks.check(np.zeros(0, dtype=np.int64))
    blocks.check(slice(None))
    assert blocks._num_unchecked == 0


@pytest.mark.parametrize("row", [0, 17, 39])
def test_a_flipped_bit_is_named_when_its_row_is_read(row, stored):
    path, opened = stored
    start = path.stat().st_size - np.load(path).nbytes
    content = bytearray(path.read_bytes())
    content[start + (len(content) - start) * row // 40 + 5] ^= 4
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"train\.logits\.npy: the content has changed since it was written; delete the bank"):
        opened().check(np.array([20, row]))
    with pytest.raises(InputError, match="has changed"):
        opened().check(slice(None))


def test_only_the_blocks_that_are_read_are_checked(tmp_path):
    path = tmp_path / "x.npy"
    np.save(path, np.zeros((8, BLOCK), dtype=np.uint8))
    write_checksums(path)
    content = bytearray(path.read_bytes())
    content[-1] = 1
    path.write_bytes(content)
    blocks = CheckedBlocks(path, np.load(path, mmap_mode="r"))
    blocks.check(np.arange(6))
    assert blocks._num_unchecked == 2
    with pytest.raises(InputError, match="has changed"):
        blocks.check(np.array([7]))


def test_checksums_of_another_file_are_refused(tmp_path):
    for name, rows in (("a", 8), ("b", 2)):
        np.save(tmp_path / f"{name}.npy", np.zeros((rows, BLOCK), dtype=np.uint8))
        write_checksums(tmp_path / f"{name}.npy")
    (tmp_path / "a.crc.npy").replace(tmp_path / "b.crc.npy")
    with pytest.raises(ValueError, match="checksums of another file"):
        CheckedBlocks(tmp_path / "b.npy", np.load(tmp_path / "b.npy", mmap_mode="r"))


def test_a_bank_checks_what_its_sample_at_the_opening_misses(tmp_path, monkeypatch):
    bank = open_bank(image_task(), make_pool(), tmp_path / "bank")
    content = bytearray((bank.directory / "train.features.npy").read_bytes())
    content[-6] ^= 1
    (bank.directory / "train.features.npy").write_bytes(content)
    monkeypatch.setattr(bank_module, "describe", lambda path: bank.meta["files"][path.name])
    with pytest.raises(InputError, match=r"train\.features\.npy: the content has changed"):
        KnowledgeBank(bank.directory).gather("train", slice(None))
