"""The student's step, its evaluation and its precision, by hand."""

import copy
import math

import pytest
import torch
from torch import nn

from kd_env.models.encode import EVALUATION_BATCH, take
from kd_env.models.networks import build
from kd_env.student.optimizer import OptimizerOptions
from kd_env.student.student import Student
from kd_env.types import ModelOutput

CPU = torch.device("cpu")
IMAGE = ["mlp(width=8)", "mlp(width=8,depth=2,dropout=0.4)", "tiny-vit(width=8,layers=1,dropout=0.4)"]
TEXT = ["tiny-bert(width=8,layers=1,dropout=0.4)"]
EVERY = [("digits_data", text) for text in IMAGE] + [("text_data", text) for text in TEXT]


class Line(nn.Module):
    """Logits w x + b, nothing else: what an optimizer does to it can be worked out by hand."""

    def __init__(self):
        super().__init__()
        self.classifier = nn.Linear(1, 2)
        with torch.no_grad():
            self.classifier.weight.copy_(torch.tensor([[0.5], [-0.25]]))
            self.classifier.bias.zero_()

    def forward(self, x):
        return ModelOutput(self.classifier(x), x)


def line(optimizer, precision="float64"):
    return Student(Line(), OptimizerOptions.of(optimizer), CPU, precision)


def pull(student, slope):
    """A loss whose gradient is ``slope`` for the weights and 0 for the bias."""
    return (student.classifier.weight[:, 0] * torch.tensor(slope, dtype=student.dtype)).sum() + 0.0 * student.classifier.bias.sum()


def test_sgd_steps_by_hand_at_the_scheduled_rate():
    student = line("sgd(lr=0.1,warmup=0.5)")
    student.step(pull(student, [1.0, -2.0]), 0.0)  # rate 0, momentum [1, -2]
    assert student.classifier.weight[:, 0].tolist() == [0.5, -0.25]
    student.step(pull(student, [1.0, 0.0]), 0.25)  # rate .05, momentum [1.9, -1.8]
    assert student.classifier.weight[:, 0].tolist() == pytest.approx([0.5 - 0.05 * 1.9, -0.25 + 0.05 * 1.8], rel=1e-12)


def test_gradients_do_not_add_up_over_steps():
    student = line("sgd(lr=0.1)")
    for _ in range(3):
        student.step(pull(student, [1.0, 1.0]), 0.5)
    moved = 0.1 * (1 + 1.9 + 2.71)
    assert student.classifier.weight[:, 0].tolist() == pytest.approx([0.5 - moved, -0.25 - moved], rel=1e-12)


@pytest.mark.parametrize(("text", "decoupled"), [("adam(lr=0.01,weight_decay=0.1)", False), ("adamw(lr=0.01,weight_decay=0.1)", True)])
def test_adam_and_adamw_first_step_by_hand(text, decoupled):
    student = line(text)
    student.step(pull(student, [3.0, -7.0]), 0.5)
    decay = 0.01 * 0.1 if decoupled else 0.0
    expected = [w * (1 - decay) - 0.01 * math.copysign(1, g) for w, g in ((0.5, 3.0), (-0.25, -7.0))]
    assert student.classifier.weight[:, 0].tolist() == pytest.approx(expected, abs=1e-9)


def test_nesterov_s_steps_by_hand():
    student = line("sgd(lr=0.1,nesterov=true)")
    assert student.preconditioner() == [1.9, 1.9]
    expected, velocity = 0.5, 0.0
    for gradient in (3.0, -1.0):
        student.step(pull(student, [gradient, 0.0]), 0.5)
        velocity = 0.9 * velocity + gradient
        expected -= 0.1 * (gradient + 0.9 * velocity)
    assert student.classifier.weight[0, 0].item() == pytest.approx(expected, rel=1e-9)
    assert student.preconditioner() == [1.9, 1.9]


def test_preconditioner_is_what_the_optimizer_divides_by():
    assert line("sgd").preconditioner() == line("adam").preconditioner() == [1.0, 1.0]
    student = line("sgd")
    student.step(pull(student, [1.0, 1.0]), 0.5)
    assert student.preconditioner() == [1.0, 1.0]
    student = line("adamw")
    student.step(pull(student, [3.0, -4.0]), 0.5)
    student.step(pull(student, [1.0, 0.0]), 0.5)
    v = [(0.999 * g**2 + h**2) * 0.001 / (1 - 0.999**2) for g, h in ((3.0, 1.0), (-4.0, 0.0))]
    weight, bias = student.preconditioner()
    assert weight[:, 0].tolist() == pytest.approx([1 / (math.sqrt(x) + 1e-8) for x in v], rel=1e-6)
    assert bias.tolist() == pytest.approx([1e8, 1e8])


@pytest.mark.parametrize(("data", "text"), EVERY)
def test_predict_is_without_dropout_and_the_student_stays_in_training_mode(request, data, text):
    material = request.getfixturevalue(data)
    student = Student(build(text, material.task, 0), OptimizerOptions(), CPU, "float32")
    inputs = take(material.inputs["train"], slice(0, 20), CPU)
    reference = copy.deepcopy(student.network).eval()(**inputs).logits
    torch.testing.assert_close(student.predict(inputs), reference.detach(), rtol=0, atol=1e-6)
    assert student.network.training
    assert not student.predict(inputs).requires_grad
    if student.has_dropout:
        assert (student.forward(inputs).logits - reference).abs().max() > 1e-3


def test_many_examples_are_predicted_in_order(digits_data):
    student = Student(build("mlp(width=8)", digits_data.task, 0), OptimizerOptions(), CPU, "float64")
    inputs = take(digits_data.inputs["train"], slice(0, 2 * EVALUATION_BATCH + 7), CPU)
    logits = student.predict(inputs)
    assert len(logits) == 2 * EVALUATION_BATCH + 7
    torch.testing.assert_close(logits, student.network(inputs["pixel_values"].double()).logits.detach(), rtol=0, atol=1e-12)


def test_evaluate_by_hand():
    student = line("sgd")
    loss, accuracy = student.evaluate({"x": torch.tensor([[4.0], [4.0], [-8.0], [0.0]])}, torch.tensor([0, 1, 1, 1]))
    margins = [3.0, -3.0, 6.0, 0.0]  # of the true label; at 0 the first class is predicted
    assert loss.tolist() == pytest.approx([sum(math.log1p(math.exp(-m)) for m in margins) / 4], rel=1e-12)
    assert accuracy.tolist() == [0.5]


@pytest.mark.parametrize(("precision", "dtype"), [("float32", torch.float32), ("float64", torch.float64), ("auto", torch.float32)])
def test_precision_is_the_type_of_weights_and_outputs(precision, dtype):
    student = line("adam", precision)
    output = student.forward({"x": torch.zeros(2, 1)})
    assert {student.classifier.weight.dtype, output.logits.dtype, output.features.dtype} == {dtype}
    assert student.cast({"ids": torch.tensor([1])})["ids"].dtype == torch.int64
