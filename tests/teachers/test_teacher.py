"""Built-in networks as teachers, and pools of teachers."""

import numpy as np
import pytest
import torch

from kd_env.errors import InputError
from kd_env.teachers import NetworkTeacher, Pool, load_pool
from kd_env.teachers.teacher import classifiers
from kd_env.teachers.train_recipe import TeacherRecipe, train_network
from kd_env.types import ModelOutput

SMALL = TeacherRecipe("small", "mlp(width=8)", fraction=0.1, epochs=2, seed=3)


def test_a_fingerprint_follows_weights_scale_and_name(digits):
    network = train_network(SMALL, digits)
    teacher = NetworkTeacher("t", network, digits)
    same_again = NetworkTeacher("t", train_network(SMALL, digits), digits)
    assert teacher.fingerprint() == same_again.fingerprint()
    assert teacher.fingerprint() != NetworkTeacher("u", network, digits).fingerprint()
    assert teacher.fingerprint() != NetworkTeacher("t", network, digits, logit_scale=2.0).fingerprint()
    with torch.no_grad():
        same_again.network.classifier.bias[0] += 1e-6
    assert teacher.fingerprint() != same_again.fingerprint()


def test_logit_scale_multiplies_the_logits_alone(digits):
    network = train_network(SMALL, digits)
    plain, loud = (NetworkTeacher("t", network, digits, scale)(digits.reward.inputs[:8]) for scale in (1.0, 8.0))
    assert torch.allclose(8.0 * plain.logits, loud.logits)
    assert torch.equal(plain.features, loud.features)
    assert plain.logits.shape == (8, 10)
    assert not plain.logits.requires_grad


def test_the_head_maps_features_to_logits(digits):
    teachers = tuple(NetworkTeacher(f"t{scale}", train_network(SMALL, digits), digits, scale) for scale in (1.0, 3.0))
    for teacher, (weight, bias) in zip(teachers, classifiers(Pool("p", teachers)), strict=True):
        output = teacher(digits.reward.inputs[:8])
        torch.testing.assert_close(output.features @ weight.T + bias, output.logits)
        assert not weight.requires_grad


class Headless:
    name = "headless"

    def fingerprint(self):
        return "headless"

    def __call__(self, inputs):
        return ModelOutput(torch.zeros(len(inputs), 10), torch.zeros(len(inputs), 2))


def test_a_teacher_without_a_head_is_named():
    advice = "leave out the hints, with --set knowledge=response"
    with pytest.raises(InputError, match=rf"teacher 'headless' has no classifier of the task's classes \(head\(\)\) .*; {advice}"):
        classifiers(Pool("p", (Headless(),)))


def test_a_pool_has_teachers_of_unique_names(digits):
    teacher = load_pool("digits/experts", digits).teachers[0]
    with pytest.raises(InputError, match="has no teachers"):
        Pool("none", ())
    with pytest.raises(InputError, match="must be unique, got upright, upright; rename one, for example its folder"):
        Pool("twice", (teacher, teacher))


def test_a_selection_keeps_the_best_teachers_if_all_of_them_stay(digits):
    teachers = load_pool("digits/experts", digits).teachers
    pool = Pool("p", teachers, best_for_group=(0, 2, 2, 0))
    assert pool.select(["mirrored", "upright"]).best_for_group == (1, 0, 0, 1)
    assert pool.select(["mirrored", "upright"]).name == "p[mirrored+upright]"
    assert pool.select(["mirrored", "inverted"]).best_for_group is None
    assert np.array_equal(pool.select(["inverted"]).teachers, teachers[1:2])
