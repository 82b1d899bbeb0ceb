"""Folds of the reward labels: each held-out gradient is of the next one."""

import numpy as np
import pytest
import torch
from small_runs import drive, start

from kd_env.distillation.reward_meter import GradientOptions, RewardMeter
from kd_env.distillation.reward_split import RewardSplit

FOLDS = GradientOptions(folds=3)


def gradients(data, num_students, refresh, updates, num_labels=30):
    """Gradients by update ``[updates, S, P]``, those of the rows of each update's fold alone, and folds ``[updates, S]``."""
    run = start(data, list(range(num_students)), num_students=num_students, student="mlp(width=8)", precision="float64")
    split = RewardSplit(data, num_labels, range(num_students))
    meter = RewardMeter(split, run.seeds.tolist(), 1200, "loss", refresh)
    seen, alone, folds = [], [], []
    for update in range(updates):
        seen.append(flat(meter.held_out_gradient(run.student, run.update, FOLDS), num_students))
        first = update // refresh % 3 * (num_labels // 3)
        part = RewardMeter(split.with_positions(split.positions[:, first : first + num_labels // 3]), run.seeds.tolist(), 1200, "loss")
        alone.append(flat(part.held_out_gradient(run.student, run.update), num_students))
        folds.append(meter.gradient_fold)
        drive(run, 1)
    return torch.stack(seen), torch.stack(alone), np.stack(folds), meter


def flat(gradient, num_students):
    return torch.cat([tensor.reshape(num_students, -1) for tensor in gradient], 1).clone()


@pytest.mark.parametrize("num_students", [1, 2])
def test_each_gradient_is_of_the_labels_of_its_fold(digits_data, num_students):
    seen, alone, folds, meter = gradients(digits_data, num_students, refresh=1, updates=4)
    torch.testing.assert_close(seen, alone, rtol=1e-12, atol=1e-15)
    assert folds.tolist() == [[fold] * num_students for fold in (0, 1, 2, 0)]
    assert meter.state.forward_examples.tolist() == [4 * 10] * num_students


def test_a_gradient_that_is_used_again_keeps_its_fold(digits_data):
    """All folds have their turn, also if updates are a multiple of the folds apart."""
    seen, alone, folds, _ = gradients(digits_data, 1, refresh=3, updates=8)
    assert torch.equal(seen[1], seen[0])
    torch.testing.assert_close(seen[3], alone[3], rtol=1e-12, atol=1e-15)
    assert folds.ravel().tolist() == [0, 0, 0, 1, 1, 1, 2, 2]


def test_folds_are_disjoint_and_in_proportion_to_the_classes(digits_data):
    split = RewardSplit(digits_data, 103, [7])
    parts = [split.fold(np.array([number]), 4).positions[0] for number in range(5)]
    assert [len(part) for part in parts] == [25] * 5
    assert len(np.unique(np.concatenate(parts[:4]))) == 100
    assert np.array_equal(parts[4], parts[0])
    labels = digits_data.labels["reward"].numpy()
    counts = np.stack([np.bincount(labels[part], minlength=10) for part in parts[:4]])
    assert (np.abs(counts - counts.mean(0)) <= 2).all()


def test_there_are_no_more_folds_than_labels(digits_data):
    meter = RewardMeter(RewardSplit(digits_data, 2, [0]), [0], 40, "loss")
    assert [meter.num_folds(folds) for folds in (1, 2, 5)] == [1, 2, 2]
