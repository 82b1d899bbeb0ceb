"""The best teacher of each training example: by group, by class, and after a change."""

import dataclasses

import numpy as np
import pytest

from kd_env.errors import InputError
from kd_env.teachers import Pool, load_pool
from kd_env.teachers.best_teachers import best_teachers
from kd_env.teachers.pool_recipes import PoolRecipe
from kd_env.teachers.teacher import Drift


def test_it_is_that_of_the_group_or_of_the_class(digits):
    assert best_teachers(PoolRecipe("p"), digits) is None
    by_group = best_teachers(PoolRecipe("p", best_for_group=(2, 0, 1, 1)), digits)
    assert (by_group == np.array([2, 0, 1, 1])[digits.train.groups]).all()
    classes = (0, 1, 0, 2, 1, 1, 0, 0, 2, 2)
    assert (best_teachers(PoolRecipe("p", best_for_class=classes), digits) == np.array(classes)[digits.train.labels]).all()


def test_after_a_change_it_is_the_teacher_that_has_the_role(digits):
    pool = PoolRecipe("p", best_for_group=(0, 1, 2, 3), drift=Drift(0.25, (1, 3, 0, 2)))
    groups = digits.train.groups
    assert (best_teachers(pool, digits, 0.24) == groups).all()
    after = best_teachers(pool, digits, 0.25)
    assert (np.array(pool.drift.roles)[after] == groups).all()
    assert {int(g): int(after[groups == g][0]) for g in range(4)} == {0: 2, 1: 0, 2: 3, 3: 1}


def test_an_example_without_label_has_no_best_teacher_by_class(digits):
    labels = np.where(np.arange(len(digits.train)) == 7, -1, digits.train.labels)
    task = dataclasses.replace(digits, train=dataclasses.replace(digits.train, labels=labels), unlabelled=True)
    with pytest.raises(InputError, match="unlabelled examples of task 'digits' have no label; give them one"):
        best_teachers(PoolRecipe("p", best_for_class=(0,) * 10), task)
    assert set(best_teachers(PoolRecipe("p", best_for_group=(0,) * 4), task)) == {0}


@pytest.mark.parametrize("at", [0.0, 1.0, -1.0])
def test_a_change_is_during_the_run(at):
    with pytest.raises(InputError, match="above 0, below 1"):
        Drift(at, (1, 0))


def test_roles_are_a_permutation():
    with pytest.raises(InputError, match=r"permutation of 0\.\.2"):
        Drift(0.5, (0, 1, 1))


@pytest.mark.parametrize("roles", [(1.0, 2.0, 0.0), (True, False), ("1", "0")])
def test_roles_are_indices(roles):
    with pytest.raises(InputError, match=r"must be a permutation of 0\.\."):
        Drift(0.5, roles)


@pytest.mark.parametrize("best", [(0, 1, 2, 9), (0, 1, 2, -1), (0.0, 1.0, 2.0, 3.0)])
def test_best_teachers_are_indices_of_the_pool(digits, best):
    teachers = load_pool("digits/experts", digits).teachers
    with pytest.raises(InputError, match=r"best_for_group=.* must be indices of its teachers, 0 to 3"):
        Pool("own", teachers, best_for_group=best)


def test_every_group_has_a_best_teacher(digits):
    with pytest.raises(InputError, match="names the best teacher of 2 groups, and task 'digits' has at least 4"):
        best_teachers(PoolRecipe("p", best_for_group=(0, 1)), digits)
