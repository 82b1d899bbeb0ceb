"""The held-out labelled examples: which there are, and what is drawn of them."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from small_runs import drive, start

from kd_env.distillation.reward_meter import RewardMeter
from kd_env.distillation.reward_split import RewardSplit, labelled_positions
from kd_env.errors import InputError


@pytest.mark.parametrize("count", [1, 10, 37, 100, 0])
def test_labelled_rows_are_distinct_proportional_and_nested(digits_data, count):
    labels = digits_data.labels["reward"].numpy()
    rows, all_rows = labelled_positions(labels, count, seed=4), labelled_positions(labels, 0, seed=4)
    assert len(rows) == len(set(rows)) == (count or 1200)
    assert (rows == all_rows[: len(rows)]).all()
    share = np.bincount(labels, minlength=10) / len(labels)
    assert (np.abs(np.bincount(labels[rows], minlength=10) - share * len(rows)) <= 2).all()


def test_labelled_rows_follow_from_the_seed_and_cannot_exceed_what_there_is(digits_data):
    labels = digits_data.labels["reward"].numpy()
    assert (labelled_positions(labels, 30, 1) == labelled_positions(labels, 30, 1)).all()
    assert (labelled_positions(labels, 30, 1) != labelled_positions(labels, 30, 2)).any()
    with pytest.raises(InputError, match="reward_labels=1201: the reward split has 1200"):
        RewardSplit(digits_data, 1201, [0])


def test_each_student_has_the_labels_of_its_seed(digits_data):
    split = RewardSplit(digits_data, 30, [7, 3, 7])
    assert split.positions.shape == (3, 30)
    assert split.num_labels == 30
    assert (split.positions[0] == split.positions[2]).all()
    assert (split.positions[0] != split.positions[1]).any()
    alone = split.of_student(1)
    assert (alone.positions == RewardSplit(digits_data, 30, [3]).positions).all()
    assert alone.label_seeds == [3]
    assert split.positions.shape == (3, 30), "the whole split stays as it is"


def test_at_gives_inputs_and_labels_of_rows(digits_data):
    rows = np.array([5, 0, 700])
    inputs, labels = RewardSplit(digits_data, 0, [0]).at(rows)
    assert torch.equal(inputs["pixel_values"], digits_data.inputs["reward"]["pixel_values"][rows])
    assert torch.equal(labels, digits_data.labels["reward"][rows])


def test_draws_follow_from_student_seed_purpose_and_number(digits_data):
    split = RewardSplit(digits_data, 50, [1, 2])
    seeds, numbers = np.array([8, 9]), np.array([0, 4])

    def draw(seeds=seeds, purpose="measurement", number=numbers):
        return split.draw(np.asarray(seeds), purpose, np.asarray(number), 20)

    rows = draw()
    assert rows.shape == (40,)
    assert (draw() == rows).all()
    for student, part in enumerate(np.split(rows, 2)):
        assert len(set(part)) == 20, "without replacement"
        assert set(part) <= set(split.positions[student])
        alone = split.of_student(student).draw(seeds[[student]], "measurement", numbers[[student]], 20)
        assert (alone == part).all(), "whatever the others draw"
    for purpose in ("gradient", "reward_ce"):
        assert (draw(purpose=purpose) != rows).any()
    assert (draw(number=[0, 5])[:20] == rows[:20]).all()
    assert (draw(number=[0, 5])[20:] != rows[20:]).any()
    assert (draw(seeds=[8, 10])[:20] == rows[:20]).all()
    assert (draw(seeds=[8, 10])[20:] != rows[20:]).any()


@pytest.mark.parametrize("purpose", ["measurement", "gradient", "reward_ce"])
def test_a_draw_of_all_is_all(digits_data, purpose):
    split = RewardSplit(digits_data, 12, [1, 2])
    rows = split.draw(np.array([8, 9]), purpose, np.array([0, 1]), 12)
    assert (np.sort(rows.reshape(2, 12), axis=1) == np.sort(split.positions, axis=1)).all()
    in_order = (rows == split.positions.ravel()).all()
    assert in_order == (purpose != "reward_ce"), "what is trained on is shuffled"


def test_only_the_labelled_rows_are_ever_read(digits_data):
    """With other inputs on all other rows, what is learned and measured is the same."""
    rows = RewardSplit(digits_data, 30, [0]).positions[0]
    hidden = np.setdiff1d(np.arange(1200), rows)
    assert len(hidden) == 1170
    poisoned = dict(digits_data.inputs["reward"])
    poisoned["pixel_values"] = poisoned["pixel_values"].clone()
    poisoned["pixel_values"][hidden] = float("nan")
    everyone, results = np.ones(1, dtype=np.bool_), []
    for data in (digits_data, replace(digits_data, inputs={**digits_data.inputs, "reward": poisoned})):
        run = start(data, updates=3, reward_labels=30, reward_ce=0.5)
        meter = RewardMeter(run.reward_split, [0], 256, "loss")
        meter.start(run.student, everyone)
        for _ in range(3):
            results.append((drive(run, 1), meter.improvement(run.student, everyone).tolist()))
            results.append([gradient.tolist() for gradient in meter.held_out_gradient(run.student, run.update)])
    assert results[:6] == results[6:]
