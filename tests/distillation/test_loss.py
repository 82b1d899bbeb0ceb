"""What a decision means for the loss."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from small_runs import decide, start, weights_for

from kd_env.errors import InputError
from kd_env.types import Decision


def test_strengths_may_differ_by_instance(digits_data):
    run = start(digits_data, precision="float64")
    weights, strengths = weights_for(run), torch.linspace(0, 1, 8, dtype=torch.float64)
    losses = run.per_example_loss(Decision({"response": weights}, {"response": strengths, "label": 2.0 - strengths}, 3.0)).detach()
    batch, response = run.observe(), run.per_teacher_loss("response", 3.0).detach()
    ce = torch.nn.functional.cross_entropy(batch.student.logits, batch.labels, reduction="none")
    for b in range(8):
        expected = strengths[b] * (weights[b] * response[b]).sum() + (2 - strengths[b]) * ce[b]
        assert float(losses[b]) == pytest.approx(float(expected), rel=1e-12)


def test_weights_may_carry_a_gradient(digits_data):
    run = start(digits_data, precision="float64")
    weights = weights_for(run).requires_grad_()
    run.per_example_loss(Decision.response(weights, 0.5, 2.0)).sum().backward()
    torch.testing.assert_close(weights.grad, 0.5 * run.per_teacher_loss("response", 2.0).detach(), rtol=1e-12, atol=0)


def test_a_penalty_is_added_as_it_is(digits_data):
    run = start(digits_data, precision="float64")
    penalty = torch.linspace(-1, 1, 8, dtype=torch.float64)
    decision = decide(run)
    with_penalty = Decision(decision.weights, decision.strengths, decision.temperature, penalty)
    torch.testing.assert_close(run.per_example_loss(with_penalty), run.per_example_loss(decision) + penalty)
    assert torch.equal(run.per_example_loss(Decision({}, {}, 1.0, penalty)), penalty)


def test_a_decision_without_types_has_no_loss(digits_data):
    run = start(digits_data)
    assert run.per_example_loss(Decision({}, {"label": 0.0}, 1.0)).tolist() == [0.0] * 8


def test_a_type_that_the_setting_does_not_have_is_named(digits_data):
    run = start(digits_data, knowledge="response,hint")
    with pytest.raises(InputError, match="unknown knowledge type 'relatio'; known: hint, label, response"):
        run.per_teacher_loss("relatio", 2.0)


def test_types_that_read_labels_need_a_kd_weight_below_one(digits_data):
    with pytest.raises(InputError, match=r"tckd reads the training labels, which this setting does not use \(kd_weight=1\)"):
        start(digits_data, knowledge="tckd", kd_weight=1.0)


def test_types_that_read_labels_need_a_label_of_every_example(digits_data):
    train = digits_data.task.train
    labels = np.where(np.arange(len(train)) < 5, -1, train.labels)
    task = replace(digits_data.task, train=replace(train, labels=labels), unlabelled=True)
    with pytest.raises(InputError, match=r"tckd reads the training labels, and task 'digits' has examples without"):
        start(replace(digits_data, task=task), knowledge="tckd", kd_weight=0.5)
