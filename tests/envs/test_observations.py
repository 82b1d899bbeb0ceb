"""Observation sets: pure functions of a mini-batch, by hand and by their bounds."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from mini_batches import batch_of, observed
from pairwise import chosen

from kd_env.distillation import Distillation
from kd_env.distillation.settings import distillation_settings
from kd_env.envs.observations import BOUND, OBSERVATIONS, space, split_teachers
from kd_env.types import Batch, ModelOutput

LN2 = math.log(2.0)
SIZES = [(1, 1), (1, 256), (2, 5), (3, 64), (4, 32), (5, 2), (8, 64), (16, 1), (16, 256)]


@pytest.mark.parametrize(("size", "name"), chosen(itertools.product(SIZES, OBSERVATIONS), zip(SIZES, 3 * [*OBSERVATIONS], strict=True)))
def test_every_block_is_in_its_space(size, name):
    for scale, labels in itertools.product([0.0, 3.0, 1e4], [False, True]):
        assert_in_space(*size, name, scale, labels)


def assert_in_space(num_teachers, rows, name, scale, labels):
    blocks = observed(batch_of(num_teachers, rows, scale=scale), name, labels)
    assert list(blocks) == list(OBSERVATIONS[name].columns)
    for block_name, block in blocks.items():
        assert block.dtype == np.float32
        assert block.shape[0] == rows
        assert block.flags.c_contiguous
        assert np.isfinite(block).all(), block_name
    assert all(space(blocks).contains({name: block[row] for name, block in blocks.items()}) for row in range(rows))
    assert space(blocks, rows).contains({name: block.reshape(-1) for name, block in blocks.items()})


def test_a_student_that_has_diverged_is_still_observed_in_bounds():
    for name, bad in itertools.product(OBSERVATIONS, [math.nan, math.inf, -math.inf]):
        student = ModelOutput(torch.full((3, 4), bad), torch.full((3, 6), bad))
        blocks = observed(batch_of(2, 3, student=student), name, labels=True)
        assert all(np.abs(block).max() <= BOUND for block in blocks.values())


@pytest.mark.parametrize("name", OBSERVATIONS)
@pytest.mark.parametrize("labels", [False, True])
def test_the_listed_columns_are_what_is_observed(name, labels):
    num_teachers, num_classes, width = 3, 4, 6
    blocks = observed(batch_of(num_teachers, 5, num_classes, width), name, labels)
    widths = {name: block.shape[1] for name, block in blocks.items()}
    widths["teachers"] //= 1 if name == "cls" else num_teachers
    several = {"D_1 + ... + D_K columns": 3 * 7, "D columns": width, "C columns": num_classes}
    for block, columns in OBSERVATIONS[name].columns.items():
        listed = [column for column in columns if labels or "[label]" not in column]
        assert widths[block] == sum(next((n for text, n in several.items() if column.endswith(text)), 1) for column in listed), block


def by_hand():
    """One instance of label 0: teachers (.75, .25) and (.2, .8), student (.25, .75)."""
    teacher = torch.tensor([[[0.75, 0.25], [0.2, 0.8]]])
    student = torch.tensor([[0.25, 0.75]])
    return batch_of(
        2, 1, 2, 1, labels=torch.tensor([0]), teacher_logits=teacher.log() + 1.0, student=ModelOutput(student.log(), torch.tensor([[0.3]]))
    )


def entropy(p):
    return -(p * math.log(p) + (1 - p) * math.log(1 - p)) / LN2


def test_summary_by_hand():
    blocks = observed(by_hand(), "summary", labels=True)
    mixture = (0.75 + 0.2) / 2
    assert blocks["instance"][0].tolist() == pytest.approx([0.5, 1 - mixture, entropy(mixture)], rel=1e-5)
    first, second = split_teachers(blocks, 2)[0].tolist()
    kl = [0.75 * math.log(3) - 0.25 * math.log(3), 0.2 * math.log(0.8) + 0.8 * math.log(0.8 / 0.75)]
    assert first == pytest.approx([0.75, entropy(0.75), 0.5, kl[0], 0, 1, -math.log(0.75), 1], rel=1e-5)
    assert second == pytest.approx([0.8, entropy(0.8), 0.6, kl[1], 1, 0, -math.log(0.2), 0], rel=1e-5)
    assert blocks["student"][0].tolist() == pytest.approx([0.75, entropy(0.75), 0.5, -math.log(0.25), 0], rel=1e-5)
    assert blocks["progress"].tolist() == [[0.25]]


def test_full_by_hand():
    blocks = observed(by_hand(), "full", labels=True)
    assert blocks["instance"][0].tolist() == pytest.approx([0.3])
    assert blocks["teachers"][0].tolist() == pytest.approx([0.75, 0.25, -math.log(0.75), 0.2, 0.8, -math.log(0.2)], rel=1e-5)
    assert blocks["student"][0].tolist() == pytest.approx([0.25, 0.75, -math.log(0.25)], rel=1e-5)


def test_cls_by_hand():
    """The last features alone, whatever the teachers' widths, and never a label."""
    features = (torch.tensor([[0.5, -0.25]]), torch.tensor([[12.0, 2.0, -3.0]]))
    for labels in (False, True):
        blocks = observed(replace(by_hand(), teacher_features=features), "cls", labels)
        assert {name: block[0].tolist() for name, block in blocks.items()} == {
            "teachers": [0.5, -0.25, 10.0, 2.0, -3.0],
            "student": [pytest.approx(0.3)],
            "progress": [0.25],
        }


def test_each_student_s_rows_show_its_own_progress():
    blocks = observed(batch_of(2, 6, progress=np.array([0.0, 0.25, 0.75])), "summary", labels=False)
    assert blocks["progress"].ravel().tolist() == [0.0, 0.0, 0.25, 0.25, 0.75, 0.75]


@pytest.mark.parametrize("name", ["summary", "full"])
def test_hidden_labels_change_nothing_and_shown_ones_do(name):
    batch = batch_of(3, 8)
    other = replace(batch, labels=(batch.labels + 1) % 4)
    hidden, hidden_other = (observed(each, name, labels=False) for each in (batch, other))
    assert all(np.array_equal(hidden[block], hidden_other[block]) for block in hidden)
    shown, shown_other = (observed(each, name, labels=True) for each in (batch, other))
    assert {block for block in shown if not np.array_equal(shown[block], shown_other[block])} == {"teachers", "student"}


def test_hidden_labels_are_the_same_columns_less_those_marked():
    batch = batch_of(3, 8)
    hidden, shown = (observed(batch, "summary", labels=labels) for labels in (False, True))
    assert np.array_equal(split_teachers(hidden, 3), split_teachers(shown, 3)[..., :-2])
    assert np.array_equal(hidden["student"], shown["student"][:, :-2])


def test_summary_is_free_of_classes_width_and_their_order():
    shapes = [
        {name: block.shape for name, block in observed(batch_of(3, 5, C, D), "summary", labels=True).items()}
        for C, D in ((2, 6), (10, 24), (77, 1))
    ]
    assert shapes[0] == shapes[1] == shapes[2]
    batch = batch_of(3, 8)
    order = torch.tensor([2, 0, 3, 1])
    student = ModelOutput(batch.student.logits[:, order], -batch.student.features)
    turned = replace(batch, teacher_logits=batch.teacher_logits[:, :, order], labels=order.argsort()[batch.labels], student=student)
    blocks, turned_blocks = (observed(each, "summary", labels=True) for each in (batch, turned))
    for name in ("instance", "student"):
        np.testing.assert_allclose(blocks[name], turned_blocks[name], atol=1e-5)
    majority = OBSERVATIONS["summary"].columns["teachers"].index("agrees with the majority")  # the order of classes breaks its ties
    others = [column for column in range(8) if column != majority]
    teachers, turned_teachers = (split_teachers(each, 3)[..., others] for each in (blocks, turned_blocks))
    np.testing.assert_allclose(teachers, turned_teachers, atol=1e-5)


def test_teachers_are_laid_out_in_their_order():
    batch, order = batch_of(4, 6), [2, 0, 3, 1]
    turned = replace(batch, teacher_logits=batch.teacher_logits[:, order])
    for name in ("summary", "full"):
        teachers, turned_teachers = (split_teachers(observed(each, name, labels=True), 4) for each in (batch, turned))
        np.testing.assert_allclose(teachers[:, order], turned_teachers, atol=1e-6)
        assert not np.allclose(teachers, turned_teachers)
    features = split_teachers(observed(batch, "cls", labels=True), 4)
    assert all(np.array_equal(features[:, k], batch.teacher_features[k].numpy()) for k in range(4))
    flat = observed(batch, "full", labels=False)
    one_row = {"teachers": flat["teachers"].reshape(-1)[:16]}
    assert np.array_equal(split_teachers(one_row, 4), split_teachers(flat, 4)[0])


def test_groups_are_never_observed(digits_data):
    task = digits_data.task
    groups = np.random.default_rng(0).permutation(task.train.groups)
    other = replace(digits_data, task=replace(task, train=replace(task.train, groups=groups)))
    for name in OBSERVATIONS:
        batches = [Distillation(data, distillation_settings(task), 0).observe() for data in (digits_data, other)]
        blocks, other_blocks = (observed(batch, name, labels=True) for batch in batches)
        assert all(np.array_equal(blocks[block], other_blocks[block]) for block in blocks)
    assert "groups" not in Batch.__dataclass_fields__
