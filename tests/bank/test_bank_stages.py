"""Feature maps of stages in a bank: what is kept, its size, and how it is used again."""

import dataclasses

import numpy as np
import pytest

from kd_env.bank.bank import KnowledgeBank, open_bank
from kd_env.bank.blocks import is_checksum_file
from kd_env.bank.drift import after_drift
from kd_env.errors import InputError
from kd_env.models.convolutional import checkpoint
from kd_env.models.networks import build
from kd_env.teachers import NetworkTeacher, Pool
from kd_env.teachers.checkpoint import CheckpointTeacher
from kd_env.teachers.teacher import Drift


@pytest.fixture(scope="module")
def few(digits_data):
    task = digits_data.task
    return dataclasses.replace(task, train=task.train.take(np.arange(20)), reward=task.reward.take(np.arange(10)))


def teacher(task, seed, text="resnet8(width=2)"):
    return NetworkTeacher(f"teacher{seed}", build(text, task, seed), task)


def pool_of(task, drift=None):
    return Pool("staged", (teacher(task, 0), teacher(task, 1)), drift=drift)


def bytes_of_maps(bank):
    """Bytes of the arrays of maps, without their headers."""
    files = bank.directory.glob("*.maps*.npy")
    return {path.name: np.load(path, mmap_mode="r").nbytes for path in files if not is_checksum_file(path)}


@pytest.mark.long
def test_the_bank_keeps_only_the_stages_that_are_asked_for(few, tmp_path):
    """Digits have 8 x 8 pixels: maps of 2 x 8 x 8, 4 x 4 x 4 and 8 x 2 x 2 floats for each example and teacher."""
    stage = {"stage1": 512, "stage2": 256, "stage3": 128}
    for asked, expected in (
        ({"maps"}, {"train.maps": 128}),
        ({"maps.stage2"}, {"train.maps.stage2": 256}),
        ({"maps.all"}, {f"train.maps.{name}": size for name, size in stage.items()}),
    ):
        bank = open_bank(few, pool_of(few), tmp_path / "-".join(asked), keep=frozenset(asked))
        assert bytes_of_maps(bank) == {f"{name}.{k}.npy": 20 * size for name, size in expected.items() for k in (0, 1)}
        assert bank.keeps == asked
        assert KnowledgeBank(bank.directory).stages == bank.stages


def test_maps_are_gathered_by_stage(few, tmp_path):
    bank, rows = open_bank(few, pool_of(few), tmp_path / "bank", keep=frozenset({"maps.all", "maps.stem"})), np.array([3, 3, 15])
    assert bank.shapes.stages[0] == {"stem": (2, 8, 8), "stage1": (2, 8, 8), "stage2": (4, 4, 4), "stage3": (8, 2, 2)}
    assert bank.gather("train", rows).stages == ()
    outputs = bank.gather("train", rows, frozenset({"maps.all"}))
    assert outputs.maps == ()
    for k in (0, 1):
        expected = teacher(few, k).forward(few.train.inputs[rows], frozenset({"maps.all"})).stages
        assert list(outputs.stages[k]) == list(expected)
        for name, maps in expected.items():
            np.testing.assert_allclose(outputs.stages[k][name], maps.numpy(), rtol=1e-4, atol=1e-5)
    (stages, _) = bank.gather("train", rows, frozenset({"maps.stage2"})).stages
    assert list(stages) == ["stage2"]


def test_teachers_in_folders_give_the_same_maps(few, tmp_path):
    network = build("resnet8(width=2)", few, 0)
    checkpoint.save(tmp_path / "saved", network, few.class_names)
    saved = CheckpointTeacher(str(tmp_path / "saved"), few)
    keep = frozenset({"maps.all"})
    banks = [open_bank(few, Pool("one", (each,)), tmp_path / f"bank-{each.name}", keep=keep) for each in (saved, teacher(few, 0))]
    (ours,), (expected,) = (bank.gather("train", np.arange(20), keep).stages for bank in banks)
    assert list(ours) == ["stage1", "stage2", "stage3"]
    for name, maps in expected.items():
        np.testing.assert_allclose(ours[name], maps, rtol=1e-5, atol=1e-6)
    output = saved(few.train.inputs[:3])
    assert output.stages == {}, "a plain call gives the last map alone"
    assert output.maps.shape == (3, 8, 2, 2)


@pytest.mark.long
def test_a_bank_without_the_stage_cannot_be_used(few, tmp_path):
    first = open_bank(few, pool_of(few), tmp_path / "bank", keep=frozenset({"maps.stage2"}))
    assert open_bank(few, pool_of(few), tmp_path / "bank", keep=frozenset({"maps.stage2"})).fingerprint == first.fingerprint
    with pytest.raises(InputError, match=r"bank .* holds no maps\.stage1; name another folder or delete it"):
        open_bank(few, pool_of(few), tmp_path / "bank", keep=frozenset({"maps.stage1"}))
    with pytest.raises(InputError, match=r'delete it, and make it with kd-env bank --layers --maps --stages "stage1;stem"$'):
        open_bank(few, pool_of(few), tmp_path / "bank", keep=frozenset({"layers", "maps", "maps.stem", "maps.stage1"}))
    every = open_bank(few, pool_of(few), tmp_path / "all", keep=frozenset({"maps.all"}))
    assert open_bank(few, pool_of(few), tmp_path / "all", keep=frozenset({"maps.stage1"})).fingerprint == every.fingerprint
    with pytest.raises(InputError, match=r"bank .* holds no maps and no maps\.stem; "):
        open_bank(few, pool_of(few), tmp_path / "all", keep=frozenset({"maps", "maps.stem"}))


def test_teachers_that_change_roles_change_their_maps(few, tmp_path):
    drift = Drift(0.5, (1, 0))
    bank = open_bank(few, pool_of(few, drift), tmp_path / "bank", keep=frozenset({"maps.stage1"}))
    outputs = bank.gather("train", np.arange(4), frozenset({"maps.stage1"}))
    changed = after_drift(outputs, drift, np.array([False, True, False, True]))
    for k in (0, 1):
        ours, others = outputs.stages[k]["stage1"], outputs.stages[1 - k]["stage1"]
        assert np.array_equal(changed.stages[k]["stage1"], np.stack([ours[0], others[1], ours[2], others[3]]))
