"""Snapshots carry a checksum: any change of tensors or state is refused."""

import errno
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load, save

from kd_env.errors import InputError
from kd_env.serialization import OtherRunError, from_bytes, pack, read_tensors, to_bytes, unpack, write_tensors

TENSORS = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor(True), "c": torch.zeros(3, dtype=torch.bfloat16), "d": torch.zeros(0)}
IDENTITY = {"task": "digits"}


def snapshot():
    return to_bytes(TENSORS, {"identity": IDENTITY, "value": 0.25})


def test_a_snapshot_reads_back():
    tensors, state = from_bytes(snapshot(), IDENTITY)
    assert state == {"identity": IDENTITY, "value": 0.25}
    assert tensors.keys() == TENSORS.keys()
    assert all(torch.equal(tensors[name], tensor) for name, tensor in TENSORS.items())


@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (2, 1, 4, 5), (2, 3, 1, 1), (2, 1, 1, 1)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_tensors_keep_their_order_in_memory(layout, shape):
    weights = torch.empty(shape, memory_format=layout).copy_(torch.rand(shape))
    moved = {}
    packed = pack({"weights": weights}, moved)
    tensors, state = from_bytes(to_bytes(moved, {"identity": IDENTITY, "packed": packed}), IDENTITY)
    assert state == {"identity": IDENTITY, "packed": packed}
    again = unpack(packed, tensors)["weights"]
    assert torch.equal(again, weights)
    assert again.stride() == weights.stride()


@pytest.mark.parametrize("name", TENSORS)
def test_a_tensor_that_is_missing_is_seen(name):
    rest = {key: tensor for key, tensor in load(snapshot()).items() if key != name}
    with pytest.raises(InputError, match="checksum differs"):
        from_bytes(save(rest), IDENTITY)


@pytest.mark.parametrize("place", [-1, -20, -31])
def test_a_flipped_bit_is_seen(place):
    damaged = bytearray(snapshot())
    damaged[place] ^= 1
    with pytest.raises(InputError, match="restore: "):
        from_bytes(bytes(damaged), IDENTITY)


def test_a_snapshot_of_another_run_is_told_apart():
    with pytest.raises(OtherRunError, match="of another run; these differ: task"):
        from_bytes(snapshot(), {"task": "domains"})


def test_a_changed_state_is_seen():
    damaged = snapshot().replace(b'"value": 0.25', b'"value": 0.26')
    with pytest.raises(InputError, match="checksum differs"):
        from_bytes(damaged, IDENTITY)


def test_bytes_without_a_checksum_are_of_an_older_version():
    old = torch.frombuffer(bytearray(b'{"identity": {"task": "digits"}}'), dtype=torch.uint8)
    with pytest.raises(InputError, match="has no checksum"):
        from_bytes(save({"state": old}), IDENTITY)


def test_a_file_of_tensors_reads_back(tmp_path):
    assert read_tensors(tmp_path / "w.safetensors") is None
    write_tensors(tmp_path / "w.safetensors", TENSORS)
    read = read_tensors(tmp_path / "w.safetensors")
    assert read.keys() == TENSORS.keys()
    assert [path.name for path in tmp_path.iterdir()] == ["w.safetensors"]


def test_a_flipped_bit_in_a_file_of_tensors_is_seen(tmp_path):
    write_tensors(tmp_path / "w.safetensors", TENSORS)
    content = bytearray((tmp_path / "w.safetensors").read_bytes())
    content[-3] ^= 4
    (tmp_path / "w.safetensors").write_bytes(content)
    assert read_tensors(tmp_path / "w.safetensors") is None
    (tmp_path / "w.safetensors").write_bytes(content[:40])
    assert read_tensors(tmp_path / "w.safetensors") is None


def test_a_file_without_a_checksum_is_taken(tmp_path):
    (tmp_path / "w.safetensors").write_bytes(save({"a": torch.ones(2)}))
    assert torch.equal(read_tensors(tmp_path / "w.safetensors")["a"], torch.ones(2))


def test_an_error_of_the_moment_is_not_damage(tmp_path, monkeypatch):
    write_tensors(tmp_path / "w.safetensors", TENSORS)

    def fails(self):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(Path, "read_bytes", fails)
    with pytest.raises(OSError, match="Too many open files") as caught:
        read_tensors(tmp_path / "w.safetensors")
    assert caught.value.filename == str(tmp_path / "w.safetensors")


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    def fails(self, content):
        self.touch()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", fails)
    with pytest.raises(OSError, match="No space left"):
        write_tensors(tmp_path / "w.safetensors", TENSORS)
    assert not list(tmp_path.iterdir())
