"""Runs of many students beside runs of each of them alone: how both begin, are taught, and are compared."""

import dataclasses

import pytest
import torch
from small_runs import decide, start

from kd_env.distillation import Distillation

IMAGE = {"student": "mlp(width=8)", "num_students": 3, "precision": "float64", "updates": 200}
BERT = "tiny-bert(width=8,layers=2,heads=2,dropout=0)"
TEXT = {"student": BERT, "num_students": 2, "precision": "float64", "updates": 100, "batch_size": 6}

CASES = {
    "adam": ("digits_data", {"optimizer": "adam(lr=0.01)"}, 80),
    "sgd": ("digits_data", {"optimizer": "sgd(lr=0.05,decay=linear)"}, 60),
    "sgd, nesterov": ("digits_data", {"optimizer": "sgd(lr=0.02,nesterov=true,weight_decay=0.001)"}, 40),
    "adamw, labels": ("digits_data", {"optimizer": "adamw(lr=0.01,weight_decay=0.1,warmup=0.3,decay=linear)", "kd_weight": 0.5}, 60),
    "extra reward loss": ("digits_data", {"reward_ce": 0.5, "reward_labels": 21}, 60),
    "calibrated": ("digits_data", {"calibrate_teachers": True, "reward_labels": 21, "label_seeds": [4, 5, 6]}, 20),
    # not Adam: Transformers takes a ViT's softmax in float32, whose rounding Adam makes a drift of the key bias, which no output sees
    "tiny-vit": ("digits_data", {"student": "tiny-vit(width=8,layers=1)", "num_students": 2, "optimizer": "sgd(lr=0.02)"}, 20),
    "text, layers": ("layered_data", {"knowledge": "response,layer,relation", "optimizer": "adam(lr=0.001)"}, 40),
    "text, hints": ("layered_data", {"knowledge": "hint,layer(grouped=true)", "optimizer": "adam(lr=0.001)"}, 20),
    "text, all others": (
        "layered_data",
        {
            "knowledge": "response,similarity,attention,tckd,nckd,contrast",
            "kd_weight": 0.5,
            "optimizer": "adamw(lr=0.001,weight_decay=0.1)",
        },
        30,
    ),
}
"""Data, settings, and how many updates are compared; five times as many in the slow tests."""
BOTH = [False, True] * 4
"""Whether a mini-batch has been observed, by turns."""


def start_case(request, case, seed=5, **changed):
    data, keywords, _ = CASES[case]
    data = request.getfixturevalue(data)
    return start(data, seed, **((IMAGE if data.task.kind == "image" else TEXT) | keywords | changed))


def alone(run, student, seed):
    """A run of its own with the settings of ``run``."""
    settings = dataclasses.replace(run.settings, num_students=1)
    return Distillation(run.data, settings, seed, run.reward_split.of_student(student))


def each_alone(run):
    return [alone(run, s, int(seed)) for s, seed in enumerate(run.seeds)]


def assert_equal(run, student, lone, rtol=1e-7, atol=1e-9):
    """Student and run of its own: what was learned, and all that is counted."""
    state, expected = run.student.state_of(student), lone.student.state()
    assert state.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(state[name], expected[name], rtol=rtol, atol=atol, msg=lambda text, name=name: f"{name}: {text}")
    for name, values in lone.state.tensors().items():
        assert run.state.of_student(student).tensors()[name].tolist() == values.tolist(), name


def follow(run, apart, updates, rtol=1e-7, atol=1e-9):
    """Teach all and each; batches and outcomes are the same."""
    size = run.settings.batch_size
    for _ in range(updates):
        going = ~run.done
        batch, outcome = run.observe(), run.apply(decide(run))
        for s, lone in enumerate(apart):
            if not going[s]:
                continue
            rows, expected_batch = slice(s * size, (s + 1) * size), lone.observe()
            assert (batch.example_ids[rows] == expected_batch.example_ids).all()
            assert (batch.update[s], batch.progress[s]) == (expected_batch.update[0], expected_batch.progress[0])
            expected = lone.apply(decide(lone))
            assert outcome.diverged[s] == expected.diverged[0]
            if expected.diverged[0]:
                continue
            torch.testing.assert_close(outcome.student_ce[rows], expected.student_ce, rtol=rtol, atol=atol)
            assert outcome.loss[s] == pytest.approx(expected.loss[0], rel=rtol, abs=atol)


def damage(run, student, value):
    """One of the student's parameters becomes ``value``."""
    with torch.no_grad():
        if run.num_students > 1:
            run.student.theta[student, 5] = value
        else:
            vector = torch.nn.utils.parameters_to_vector(run.student.parameters)
            vector[5] = value
            torch.nn.utils.vector_to_parameters(vector, run.student.parameters)
