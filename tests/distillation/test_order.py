"""The order of the training examples: every row once per epoch, texts of similar length together, batches shuffled."""

from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest

from kd_env.distillation.order import make_order
from kd_env.student.epoch_order import WINDOW, epoch_order, length_order

LENGTHS = np.random.default_rng(0).geometric(0.08, size=8000)


def batches(seed=0, epoch=0, batch=32, lengths=LENGTHS):
    return length_order(seed, epoch, batch, lengths).reshape(-1, batch)


def padding(rows):
    """Tokens that the network processes, per token of text."""
    lengths = LENGTHS[rows]
    return (lengths.max(1) * rows.shape[1]).sum() / lengths.sum()


@pytest.mark.parametrize("size", [32, 33, 63, 64, 500, 8000])
def test_every_row_is_there_at_most_once_and_only_whole_mini_batches(size):
    rows = length_order(0, 0, 32, LENGTHS[:size])
    assert len(rows) == len(set(rows.tolist())) == size // 32 * 32
    assert set(rows.tolist()) <= set(range(size))


def test_mini_batches_hold_texts_of_similar_length():
    shuffled = epoch_order(0, 0, 8000).reshape(-1, 32)
    assert padding(shuffled) > 2.5
    assert padding(batches()) < 1.3


def test_mini_batches_come_in_no_order_of_length():
    means = LENGTHS[batches()].mean(1)
    assert abs(np.corrcoef(means, np.arange(len(means)))[0, 1]) < 0.2
    windows = [means[start : start + WINDOW].mean() for start in range(0, len(means), WINDOW)]
    assert max(windows) < 2 * min(windows)


def test_seed_and_epoch_change_which_texts_share_a_mini_batch():
    first = {tuple(sorted(row)) for row in batches()}
    assert first == {tuple(sorted(row)) for row in batches()}
    for other in (batches(seed=1), batches(epoch=1)):
        assert not first & {tuple(sorted(row)) for row in other}


def test_few_mini_batches_are_not_all_sorted_together():
    """A quarter of an epoch at most, else every epoch would have the same mini-batches."""
    few = LENGTHS[: 8 * 32]
    for rows, again in pairwise(batches(epoch=epoch, lengths=few) for epoch in range(3)):
        assert not {tuple(sorted(row)) for row in rows} & {tuple(sorted(row)) for row in again}


def test_mini_batches_are_slices_of_each_epoch_s_order_from_its_first_row(digits_data):
    size = len(digits_data.labels["train"])
    next_positions, batches = make_order(digits_data, SimpleNamespace(batch_size=32, num_students=1)), size // 32
    first, second = (epoch_order(5, epoch, size) for epoch in (0, 1))
    expected = {0: first[:32], 1: first[32:64], batches - 1: first[32 * batches - 32 : 32 * batches], batches: second[:32]}
    for update, rows in expected.items():
        assert next_positions(5, update).tolist() == rows.tolist(), update
