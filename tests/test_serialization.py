"""Snapshots carry a checksum: any change of tensors or state is refused."""

import pytest
import torch
from safetensors.torch import load, save

from kd_env.errors import InputError
from kd_env.serialization import from_bytes, to_bytes

TENSORS = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor(True), "c": torch.zeros(3, dtype=torch.bfloat16), "d": torch.zeros(0)}
IDENTITY = {"task": "digits"}


def snapshot():
    return to_bytes(TENSORS, {"identity": IDENTITY, "value": 0.25})


def test_a_snapshot_reads_back():
    tensors, state = from_bytes(snapshot(), IDENTITY)
    assert state == {"identity": IDENTITY, "value": 0.25}
    assert tensors.keys() == TENSORS.keys()
    assert all(torch.equal(tensors[name], tensor) for name, tensor in TENSORS.items())


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


def test_a_changed_state_is_seen():
    damaged = snapshot().replace(b'"value": 0.25', b'"value": 0.26')
    with pytest.raises(InputError, match="checksum differs"):
        from_bytes(damaged, IDENTITY)


def test_bytes_without_a_checksum_are_of_an_older_version():
    old = torch.frombuffer(bytearray(b'{"identity": {"task": "digits"}}'), dtype=torch.uint8)
    with pytest.raises(InputError, match="has no checksum"):
        from_bytes(save({"state": old}), IDENTITY)
