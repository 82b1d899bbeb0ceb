"""Builds of a bank that are stopped: the next one carries on, and its bank is that of an uninterrupted build."""

import itertools

import numpy as np
import pytest
from known_teachers import Interruptible, Linear, image_task, make_pool

from kd_env import tasks
from kd_env.bank.bank import open_bank
from kd_env.bank.blocks import write_checksums
from kd_env.teachers import Pool
from kd_env.teachers.checkpoint import CheckpointTeacher


@pytest.mark.parametrize(("setting", "value", "kept"), [("shards.SHARD", 512, 2 * 512), ("build.SECONDS", 0.0, 5 * 256)])
def test_a_killed_build_carries_on_where_it_was(tmp_path, monkeypatch, setting, value, kept):
    """Whole shards are not run again, and within a shard not the mini-batches that are saved."""
    monkeypatch.setattr(f"kd_env.bank.{setting}", value)
    task = tasks.load("digits")
    uninterrupted, stopped, again = Interruptible(), Interruptible(stop_after=1100), Interruptible()
    expected = open_bank(task, Pool("p", (uninterrupted,)), tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        open_bank(task, Pool("p", (stopped,)), tmp_path / "bank")
    assert not (tmp_path / "bank").exists()
    bank = open_bank(task, Pool("p", (again,)), tmp_path / "bank")
    assert again.examples == uninterrupted.examples - kept
    assert bank.meta == expected.meta
    assert {path.name for path in (tmp_path / "bank").iterdir()} == {path.name for path in (tmp_path / "whole").iterdir()}
    assert not (tmp_path / ".bank.partial").exists()


@pytest.mark.parametrize("written", [0, 1, 6])
def test_a_build_killed_while_it_writes_checksums_leaves_none_of_checksums(tmp_path, monkeypatch, written):
    pool, count = make_pool(Linear("one", 0)), itertools.count()

    def killed(path):
        if next(count) == written or written == 6:
            raise KeyboardInterrupt
        write_checksums(path)

    expected = open_bank(image_task(), pool, tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr("kd_env.bank.build.write_checksums" if written < 6 else "kd_env.bank.build.meta_checksum", killed)
        with pytest.raises(KeyboardInterrupt):
            open_bank(image_task(), pool, tmp_path / "bank")
    assert open_bank(image_task(), pool, tmp_path / "bank").meta == expected.meta
    assert {path.name for path in (tmp_path / "bank").iterdir()} == {path.name for path in (tmp_path / "whole").iterdir()}


@pytest.mark.long
@pytest.mark.parametrize("architecture", ["bert", "vit"])
def test_texts_sorted_by_length_carry_on_within_a_shard(architecture, own_task, make_checkpoint, tmp_path, monkeypatch):
    """The bank has the bits of one that ran each shard as a whole."""
    task = own_task if architecture == "bert" else tasks.load("digits")
    shape = {} if architecture == "bert" else {"image_size": 8, "patch_size": 4, "num_channels": 1, "num_labels": 10}
    folder = str(make_checkpoint(tmp_path / "model", architecture, **shape))
    pool = Pool("p", (CheckpointTeacher(folder, task),))
    whole = CheckpointTeacher(folder, task).forward(task.train.inputs[:4096], frozenset())
    monkeypatch.setattr("kd_env.bank.build.SECONDS", 0.0)
    run, counts = CheckpointTeacher.forward_in_batches, []

    def stopped(self, inputs, extra_outputs, start=0):
        for number, batch in enumerate(run(self, inputs, extra_outputs, start)):
            if number == 3:
                raise KeyboardInterrupt
            counts.append(len(batch[0]))
            yield batch

    monkeypatch.setattr(CheckpointTeacher, "forward_in_batches", stopped)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            open_bank(task, pool, tmp_path / "bank")
    monkeypatch.setattr(CheckpointTeacher, "forward_in_batches", run)
    seen = []
    bank = open_bank(task, pool, tmp_path / "bank", lambda name, done, total: seen.append((name, done, total)))
    first = next(entry for entry in seen if entry[0].endswith("train"))
    assert sum(counts) == 192
    assert first[1] == 192 + 32
    answers = bank.gather("train", np.arange(min(len(task.train), 4096)))
    assert np.array_equal(answers.logits[:, 0], whole.logits.numpy())
    assert np.array_equal(answers.features[0], whole.features.numpy())


def test_a_build_of_other_teachers_does_not_carry_on(tmp_path):
    task = tasks.load("digits")
    with pytest.raises(KeyboardInterrupt):
        open_bank(task, Pool("p", (Interruptible(stop_after=2000),)), tmp_path / "bank")
    bank = open_bank(task, Pool("p", (Interruptible(scale=2.0),)), tmp_path / "bank")
    assert bank.meta["files"] == open_bank(task, Pool("p", (Interruptible(scale=2.0),)), tmp_path / "other").meta["files"]
