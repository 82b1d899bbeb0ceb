"""Training a built-in network as a recipe says: the same every time, and on the examples and targets it names."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from kd_env.teachers.train_recipe import TeacherRecipe, train_network, training_rows, training_targets

SMALL = TeacherRecipe("small", "mlp(width=8)", fraction=0.1, epochs=2, seed=3)


def same(network, other):
    return all(torch.equal(a, b) for a, b in zip(network.state_dict().values(), other.state_dict().values(), strict=True))


def test_a_recipe_is_deterministic_in_its_seed_and_leaves_the_global_generator_alone(digits):
    torch.manual_seed(0)
    state = torch.get_rng_state()
    first = train_network(SMALL, digits)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(99)
    assert same(first, train_network(SMALL, digits))
    assert not same(first, train_network(dataclasses.replace(SMALL, seed=4), digits))


def test_dropout_draws_from_the_seed_of_the_recipe(digits):
    recipe = dataclasses.replace(SMALL, network="mlp(width=8,dropout=0.5)")
    first = train_network(recipe, digits)
    torch.rand(7)
    assert same(first, train_network(recipe, digits))


def test_the_learning_rate_is_constant_or_falls_along_half_a_cosine_and_progress_is_reported(digits, monkeypatch):
    rates, reports = [], []

    class RecordedAdam(torch.optim.Adam):
        def step(self, closure=None):
            rates.append(self.param_groups[0]["lr"])
            return super().step(closure)

    monkeypatch.setattr(torch.optim, "Adam", RecordedAdam)
    constant = train_network(SMALL, digits, lambda done, total: reports.append((done, total)))
    number = len(rates)
    assert rates == [2e-3] * number
    assert reports == [(done, number) for done in range(1, number + 1)]
    rates.clear()
    falling = train_network(dataclasses.replace(SMALL, cosine=True), digits)
    assert rates == pytest.approx([1e-3 * (1 + math.cos(math.pi * done / number)) for done in range(number)])
    assert not same(constant, falling)


def test_a_recipe_is_trained_on_its_groups_and_its_fraction_alone(digits):
    rng = np.random.default_rng
    rows = training_rows(TeacherRecipe("t", "mlp", groups=("mirrored", "upright")), digits, rng(0))
    assert set(digits.train.groups[rows]) == {0, 2}
    assert len(rows) == len(digits.train) // 2
    part = training_rows(TeacherRecipe("t", "mlp", groups=("inverted",), fraction=0.25), digits, rng(0))
    assert len(part) == len(digits.train) // 16
    assert set(digits.train.groups[part]) == {1}


def test_targets_follow_the_recipe(digits):
    labels = np.array([0, 4, 9])
    soft = training_targets(TeacherRecipe("t", "mlp", next_class=0.2), digits, labels, np.random.default_rng(0))
    assert soft.sum(1).tolist() == pytest.approx([1, 1, 1])
    assert [row.nonzero().flatten().tolist() for row in soft] == [[0, 1], [4, 5], [0, 9]]
    assert [float(soft[i, label]) for i, label in enumerate(labels)] == pytest.approx([0.8] * 3)
    many = np.zeros(5000, dtype=np.int64)
    noisy = training_targets(TeacherRecipe("t", "mlp", label_noise=0.4), digits, many, np.random.default_rng(0))
    assert float(noisy[:, 0].mean()) == pytest.approx(1 - 0.4 * 0.9, abs=0.02), "a random label is right one time in ten"


def test_examples_without_a_label_are_left_out(digits):
    labels = np.where(np.arange(len(digits.train)) % 5 == 0, -1, digits.train.labels)
    task = dataclasses.replace(digits, train=dataclasses.replace(digits.train, labels=labels), unlabelled=True)
    rows = training_rows(TeacherRecipe("t", "mlp"), task, np.random.default_rng(0))
    assert rows.tolist() == np.flatnonzero(labels >= 0).tolist()
    rows = training_rows(TeacherRecipe("t", "mlp", groups=("inverted",)), task, np.random.default_rng(0))
    assert rows.tolist() == np.flatnonzero((labels >= 0) & (digits.train.groups == 1)).tolist()


def test_the_repr_that_names_cached_files_does_not_change():
    assert repr(SMALL) == (
        "TeacherRecipe(name='small', network='mlp(width=8)', groups=(), fraction=0.1, label_noise=0.0, next_class=0.0, "
        "logit_scale=1.0, epochs=2, seed=3)"
    )
