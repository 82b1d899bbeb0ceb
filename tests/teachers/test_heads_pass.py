"""Heads of one teacher are all run by one forward pass of its network."""

import dataclasses

import numpy as np
import pytest
import torch
from counted_passes import Counted

from kd_env.bank.bank import open_bank
from kd_env.models.networks import build
from kd_env.teachers import NetworkTeacher, Pool
from kd_env.teachers import heads as heads_module
from kd_env.teachers.heads import group_by_network, heads_of


@pytest.mark.long
@pytest.mark.parametrize("keep", [frozenset(), frozenset({"layers"})], ids=["logits", "layers"])
def test_a_bank_runs_the_network_once_for_each_batch(digits, deep, tmp_path, keep):
    counted = Counted(deep)
    pool = heads_of([counted], digits)
    counted.calls.clear()
    bank = open_bank(digits, Pool("heads", pool), tmp_path / "bank", keep=keep)
    sizes = [len(getattr(digits, name)) for name in ("train", "reward", "validation")]
    batches = sum(-(-min(4096, size - shard) // 256) for size in sizes for shard in range(0, size, 4096))
    assert sum(counted.calls) == 1 + sum(sizes), "one example comes first, for the shapes"
    assert len(counted.calls) == 1 + batches
    for name in ("train", "reward", "validation"):
        kept = bank.gather(name, slice(0, 300), keep)
        for k, head in enumerate(pool):
            alone = head(getattr(digits, name).inputs[:300])
            np.testing.assert_allclose(kept.logits[:, k], alone.logits, atol=1e-5)
            np.testing.assert_allclose(kept.features[k], alone.features, atol=1e-5)
            if keep:
                np.testing.assert_allclose(kept.layers[k], alone.layers, atol=1e-5)


def test_another_batch_is_another_pass_even_in_the_same_array(digits, deep):
    counted = Counted(deep)
    first, *_, output = heads_of([counted], digits)
    counted.calls.clear()
    inputs = digits.train.inputs[:8].copy()
    before = first(inputs).logits
    output(inputs)
    output(digits.train.inputs[:8])
    assert counted.calls == [8]
    inputs[:] = digits.train.inputs[8:16]
    assert not torch.equal(first(inputs).logits, before)
    assert counted.calls == [8, 8]


def test_heads_of_one_network_are_one_group(digits, deep):
    other = NetworkTeacher("other", build("mlp(width=4)", digits, 0), digits)
    pool = heads_of([deep], digits)
    assert group_by_network([other, *pool]) == [[0], [1, 2, 3, 4]]
    assert group_by_network([pool[2], other, pool[0]]) == [[0, 2], [1]]


def test_a_build_that_was_killed_carries_on(digits, deep, tmp_path, monkeypatch):
    monkeypatch.setattr("kd_env.bank.shards.SHARD", 512)

    class Stopped(Counted):
        def __call__(self, inputs):
            if sum(self.calls) > 1500:
                raise KeyboardInterrupt
            return super().__call__(inputs)

    pool = heads_of([deep], digits)

    def on(teacher):
        body = heads_module.CachedTeacher(teacher)
        return Pool("heads", tuple(dataclasses.replace(head, body=body) for head in pool))

    whole = open_bank(digits, Pool("heads", pool), tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        open_bank(digits, on(Stopped(deep)), tmp_path / "bank")
    counted = Counted(deep)
    bank = open_bank(digits, on(counted), tmp_path / "bank")
    assert bank.meta == whole.meta
    sizes = sum(len(getattr(digits, name)) for name in ("train", "reward", "validation"))
    assert sum(counted.calls) == 1 + sizes - 3 * 512, "finished shards are not run again"
