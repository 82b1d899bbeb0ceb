"""Channels in the student's order: values worked out by hand, and the best permutation."""

import itertools

import pytest
import torch
from comparing import draw, loss_of, tensor

from kd_env.knowledge.consistent import ConsistentSurrogate, match
from kd_env.knowledge.hint import Hint


def test_consistent_by_hand():
    # the student's channels are the teacher's, exchanged; the second example is off by 1 in one of them
    student, teacher = [[1.0, 4.0], [2.0, 0.0]], [[4.0, 1.0], [0.0, 3.0]]
    assert match(tensor(student), tensor(teacher)).tolist() == [1, 0]
    assert loss_of(ConsistentSurrogate(), student, teacher).tolist() == [0.0, 0.5]
    assert loss_of(Hint(), student, teacher).tolist() == [9.0, 6.5]


def test_no_permutation_of_the_channels_is_nearer():
    student, teacher = draw(3, 5), draw(3, 5, seed=1)
    every = [loss_of(Hint(), student, teacher[:, list(order)]).sum() for order in itertools.permutations(range(5))]
    assert float(loss_of(ConsistentSurrogate(), student, teacher).sum()) == pytest.approx(float(min(every)))
    assert min(every) < 0.9 * every[0]


def test_the_teachers_order_of_channels_does_not_matter():
    student, teacher = draw(6, 5), draw(6, 5, seed=1)
    order = torch.tensor([3, 0, 4, 2, 1])
    torch.testing.assert_close(loss_of(ConsistentSurrogate(), student, teacher[:, order]), loss_of(ConsistentSurrogate(), student, teacher))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_student_that_diverges_does_not_stop_the_others(value):
    students, teachers = torch.stack([draw(4, 3), torch.full((4, 3), value, dtype=torch.float64)]), draw(2, 4, 3, seed=1)
    matched = torch.func.vmap(match)(students, teachers)
    assert matched[0].tolist() == match(students[0], teachers[0]).tolist()
    assert sorted(matched[1].tolist()) == [0, 1, 2]
