"""Selections over many students beside selections over each of them alone: how both begin, are taught, and are compared."""

import dataclasses

import numpy as np
import pytest
import torch
from selections import actions_for, pool_of, select

from kd_env.envs.selection import Selection
from kd_env.envs.step import DIVERGED_REWARD

IMAGE = {"student": "mlp(width=8)", "num_students": 3, "precision": "float64", "updates": 60, "reward_examples": 20}
TEXT = {
    "student": "tiny-bert(width=8,layers=2,heads=2,dropout=0)",
    "num_students": 2,
    "precision": "float64",
    "updates": 8,
    "batch_size": 6,
    "reward_examples": 8,
}

CASES = {
    "redrawn measurements": ("digits_data", {"optimizer": "adam(lr=0.01)"}, 32),
    "metric, mixed": ("digits_data", {"optimizer": "sgd(lr=0.05,decay=linear)", "measure": "metric", "reward": "mixed"}, 15),
    "labels, now and then": (
        "digits_data",
        {"optimizer": "adamw(lr=0.01,weight_decay=0.1,warmup=0.3,decay=linear)", "kd_weight": 0.5, "reward_every": 7},
        22,
    ),
    "extra reward loss": ("digits_data", {"reward_ce": 0.5, "reward_labels": 21, "optimizer": "adam(lr=0.01)"}, 12),
    "calibrated, head credit": ("digits_data", {"calibrate_teachers": True, "credit": "head", "reward_labels": 21}, 8),
    "first-order credit": ("digits_data", {"credit": "first_order", "optimizer": "adam(lr=0.01)"}, 12),
    "stale first-order credit": ("digits_data", {"credit": "first_order", "credit_refresh": 7, "optimizer": "sgd(lr=0.05)"}, 16),
    "head credit": ("digits_data", {"credit": "head", "credit_refresh": 2, "optimizer": "adam(lr=0.01)"}, 12),
    "counterfactual credit": ("digits_data", {"credit": "counterfactual", "batch_size": 2, "optimizer": "adam(lr=0.01)"}, 6),
    "phases, bonus": (
        "digits_data",
        {"action": "soft", "granularity": "batch", "exploration_bonus": 0.5, "updates_per_phase": 2, "knowledge": "response,hint"},
        8,
    ),
    "text, credit of every type": (
        "layered_data",
        {"knowledge": "response,layer,similarity,attention", "credit": "first_order", "optimizer": "adam(lr=0.003)"},
        3,
    ),
}
"""Data, settings, and how many steps are compared; five times as many in the slow tests."""


def start_case(request, case, seed=5, **changed):
    data, keywords, _ = CASES[case]
    data = request.getfixturevalue(data)
    return select(data, seed, **((IMAGE if data.task.kind == "image" else TEXT) | keywords | changed))


def alone(selection, student, seed):
    """A selection over one student, with the settings of ``selection``."""
    distillation = dataclasses.replace(selection.settings.distillation, num_students=1)
    settings = dataclasses.replace(selection.settings, distillation=distillation)
    lone = Selection(selection.data, pool_of(selection.data), settings, [selection.label_seeds[student]])
    lone.begin(seed)
    return lone


def each_alone(selection):
    return [alone(selection, s, int(seed)) for s, seed in enumerate(selection.distillation.seeds)]


def assert_equal(selection, student, lone, rtol=1e-7, atol=1e-9):
    """What was learned, counted, measured and remembered."""
    state, expected = selection.distillation.student.state_of(student), lone.distillation.student.state()
    assert state.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(state[name], expected[name], rtol=rtol, atol=atol, msg=lambda text, name=name: f"{name}: {text}")
    for part, expected in ((selection.distillation.state, lone.distillation.state), (selection.meter.state, lone.meter.state)):
        for name, values in expected.tensors().items():
            np.testing.assert_allclose(part.of_student(student).tensors()[name], values, rtol=1e-7, atol=1e-9, err_msg=name)
            assert values.is_floating_point() or part.of_student(student).tensors()[name].tolist() == values.tolist(), name
    memory, expected = selection.exploration.memory[student], lone.exploration.memory[0]
    assert memory.keys() == expected.keys()
    assert all(memory[name] == pytest.approx(expected[name]) for name in memory)


def of_student(values, student, num_students):
    return None if values is None else np.asarray(values).reshape(num_students, -1)[student]


def follow(selection, apart, steps):
    """Teach all and each; every step says the same."""
    count = selection.num_students
    for _ in range(steps):
        going = ~selection.distillation.done
        step = selection.advance(actions_for(selection))
        for s, lone in enumerate(apart):
            if not going[s]:
                assert not of_student(step.rewards, s, count).any()
                continue
            expected = lone.advance(actions_for(lone))
            for name in ("example_ids", "update", "progress"):
                assert (of_student(getattr(step.batch, name), s, count) == getattr(expected.batch, name)).all(), name
            assert step.diverged[s] == expected.diverged[0]
            assert step.reward_terms.keys() == expected.reward_terms.keys()
            assert step.credit.keys() == expected.credit.keys()
            if expected.diverged[0]:
                assert (of_student(step.rewards, s, count) == DIVERGED_REWARD).all()
                continue
            np.testing.assert_allclose(of_student(step.student_ce, s, count), expected.student_ce, rtol=1e-6, atol=1e-7)
            np.testing.assert_allclose(of_student(step.rewards, s, count), expected.rewards, rtol=1e-6, atol=1e-7)
            for name, values in expected.reward_terms.items():
                np.testing.assert_allclose(of_student(step.reward_terms[name], s, count), values, rtol=1e-6, err_msg=name)
            for name, values in expected.credit.items():
                scale = np.abs(values).max()
                np.testing.assert_allclose(of_student(step.credit[name], s, count), values.ravel(), rtol=1e-6, atol=1e-6 * scale)
            for name in ("improvement", "validation"):
                measured, wanted = getattr(step, name), getattr(expected, name)
                if wanted is None:
                    assert measured is None or np.isnan(measured[s])
                else:
                    assert measured[s] == pytest.approx(wanted[0], abs=1e-8)


def damage(selection, student, value):
    """One of the student's parameters becomes ``value``."""
    students = selection.distillation.student
    with torch.no_grad():
        if selection.num_students > 1:
            students.theta[student, 5] = value
        else:
            vector = torch.nn.utils.parameters_to_vector(students.parameters)
            vector[5] = value
            torch.nn.utils.vector_to_parameters(vector, students.parameters)
