"""No bit of what the package keeps changes unseen: snapshots, files of tensors, banks."""

import copy
import json
import shutil
from contextlib import suppress

import pytest
import torch
from any_content import FLIPS, JSON, QUICK, flipped
from hypothesis import given
from hypothesis import strategies as st

from kd_env.bank.bank import DamagedBankError, KnowledgeBank, open_bank
from kd_env.bank.fingerprint import meta_checksum
from kd_env.errors import InputError
from kd_env.serialization import from_bytes, read_tensors, to_bytes, write_tensors


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("bits")


TENSORS = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.zeros(2, dtype=torch.int64)}
SNAPSHOT = to_bytes(TENSORS, {"identity": {"task": "t"}, "value": [1, 2.5]})


@pytest.mark.long
@QUICK
@given(**FLIPS)
def test_no_bit_of_a_snapshot_changes_unseen(position, bit):
    with pytest.raises(InputError):
        from_bytes(flipped(SNAPSHOT, position, bit), {"task": "t"})


@QUICK
@given(st.binary(max_size=60) | st.integers(0, len(SNAPSHOT) - 1).map(lambda end: SNAPSHOT[:end]))
def test_a_snapshot_of_any_bytes(content):
    with pytest.raises(InputError):
        from_bytes(content, {"task": "t"})


@QUICK
@given(**FLIPS)
def test_no_bit_of_a_file_of_tensors_changes_unseen(position, bit, place):
    write_tensors(file := place / "w.safetensors", TENSORS)
    file.write_bytes(flipped(file.read_bytes(), position, bit))
    read = read_tensors(file)
    assert read is None or all(torch.equal(read[name], tensor) for name, tensor in TENSORS.items()), "a bit of the checksum's name"


@pytest.fixture(scope="module")
def bank(place):
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend("tests/bank")
        from known_teachers import image_task, make_pool

        return open_bank(image_task(), make_pool(), place / "bank").directory


@QUICK
@given(name=st.sampled_from(["train.logits.npy", "reward.features.npy", "validation.logits.npy", "bank.json"]), **FLIPS)
def test_no_bit_of_a_bank_changes_unseen(name, position, bit, bank):
    content = (bank / name).read_bytes()
    try:
        (bank / name).write_bytes(flipped(content, position, bit))
        with suppress(DamagedBankError):
            assert KnowledgeBank(bank).meta == json.loads(content), "white space of bank.json"
    finally:
        (bank / name).write_bytes(content)


@pytest.mark.long
@QUICK
@given(data=st.data())
def test_a_bank_s_description(data, bank, place):
    meta = json.loads((bank / "bank.json").read_text())
    changed = copy.deepcopy(meta) | {data.draw(st.sampled_from(sorted(meta))): data.draw(JSON)}
    shutil.copytree(bank, place / "copy", dirs_exist_ok=True)
    (place / "copy" / "bank.json").write_text(json.dumps(changed | {"checksum": meta_checksum(changed)}))
    with suppress(DamagedBankError):
        assert KnowledgeBank(place / "copy").teachers
