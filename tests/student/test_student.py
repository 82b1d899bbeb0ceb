"""Networks, optimizer options and the student's step, by hand."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from kd_env.errors import InputError
from kd_env.models.encode import EVALUATION_BATCH, take
from kd_env.models.networks import NETWORKS, build
from kd_env.student.optimizer import OptimizerOptions
from kd_env.student.student import Student, pick_device
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


@pytest.mark.parametrize(
    ("text", "rates"),
    [
        ("adam", [(0.0, 3e-3), (0.5, 3e-3), (0.99, 3e-3)]),
        ("sgd(lr=1)", [(0.0, 1.0), (0.75, 1.0)]),
        ("adam(lr=2,warmup=0.5)", [(0.0, 0.0), (0.25, 1.0), (0.5, 2.0), (0.9, 2.0)]),
        ("adamw(lr=2,decay=linear)", [(0.0, 2.0), (0.25, 1.5), (0.75, 0.5)]),
        ("adam(lr=2,warmup=0.2,decay=linear)", [(0.0, 0.0), (0.1, 1.0), (0.2, 2.0), (0.6, 1.0), (0.8, 0.5)]),
    ],
)
def test_the_rate_warms_up_and_decays(text, rates):
    options = OptimizerOptions.of(text)
    for progress, rate in rates:
        assert options.rate(progress) == pytest.approx(rate, rel=1e-12)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("adamm", "did you mean 'adam'"),
        ("adam(rate=1)", "rate.*options: .*lr"),
        ("adam(lr=0)", r"adam\(lr=0\): expected a number above 0"),
        ("adam(lr=-1)", "lr=-1"),
        ("adam(lr=fast)", "lr='fast'"),
        ("adam(lr=true)", "lr=True"),
        ("adam(lr=1e999)", "lr=inf"),
        ("sgd(weight_decay=-0.1)", "weight_decay"),
        ("sgd(warmup=1)", r"warmup=1\): expected a number of at least 0, below 1"),
        ("sgd(decay=cosine)", "constant or linear"),
        ("sgd(name=adam)", "name"),
        ("sgd(lr=1", "expected name"),
    ],
)
def test_bad_optimizers_are_named(text, says):
    with pytest.raises(InputError, match=says):
        OptimizerOptions.of(text)


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
    given = request.getfixturevalue(data)
    student = Student(build(text, given.task, 0), OptimizerOptions(), CPU, "float32")
    inputs = take(given.inputs["train"], slice(0, 20), CPU)
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
    margins = [3.0, -3.0, 6.0, 0.0]  # of the true label; at 0 the first class is said
    assert loss.tolist() == pytest.approx([sum(math.log1p(math.exp(-m)) for m in margins) / 4], rel=1e-12)
    assert accuracy.tolist() == [0.5]


@pytest.mark.parametrize(("data", "text"), EVERY)
def test_the_classifier_reads_the_features_and_examples_do_not_mix(request, data, text):
    given = request.getfixturevalue(data)
    network = build(text, given.task, 3).double().eval()
    student = Student(network, OptimizerOptions(), CPU, "float64")
    inputs = student.cast(take(given.inputs["train"], slice(0, 6), CPU))
    output = network(**inputs)
    assert output.logits.shape == (6, given.task.num_classes)
    torch.testing.assert_close(student.classifier(output.features), output.logits, rtol=0, atol=1e-12)
    alone = torch.cat([network(**take(inputs, slice(i, i + 1), CPU)).logits for i in range(6)])
    torch.testing.assert_close(alone, output.logits, rtol=0, atol=1e-10)
    cross_entropy(output.logits, torch.zeros(6, dtype=torch.long)).backward()
    assert all(parameter.grad is not None for parameter in network.parameters()), "every parameter is trained"


@pytest.mark.parametrize(("data", "text"), EVERY)
def test_equal_seeds_build_equal_networks_and_leave_the_global_generator_alone(request, data, text):
    task = request.getfixturevalue(data).task
    before = torch.get_rng_state()
    one = build(text, task, 5).state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(3)
    two, other = build(text, task, 5).state_dict(), build(text, task, 6).state_dict()
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)


def test_the_mlp_has_the_size_it_says(digits_data):
    def size(text):
        return sum(parameter.numel() for parameter in build(text, digits_data.task, 0).parameters())

    assert size("mlp") == size("mlp(width=24)") == 64 * 24 + 24 + 24 * 10 + 10
    assert size("mlp(width=5,depth=3,dropout=0.5)") == 64 * 5 + 5 + 2 * (25 + 5) + 5 * 10 + 10


@pytest.mark.parametrize(
    ("data", "text", "says"),
    [
        ("digits_data", "mpl", "did you mean 'mlp'"),
        ("digits_data", "mlp(size=3)", "size.*options: width, depth, dropout"),
        ("digits_data", "mlp(width=wide)", "width='wide'"),
        ("digits_data", "mlp(width=true)", "width=True"),
        ("digits_data", "mlp(width=-3)", "width=-3"),
        ("digits_data", "mlp(width=2.5)", "mlp"),
        ("digits_data", "mlp(dropout=1.5)", "mlp.*cannot be built"),
        ("digits_data", "tiny-bert", "reads text.*use mlp or tiny-vit"),
        ("text_data", "tiny-bert(width=9,heads=2)", "cannot be built"),
        ("text_data", "mlp", "reads images.*use tiny-bert"),
        ("text_data", "tiny-vit", "reads images.*use tiny-bert"),
    ],
)
def test_students_that_cannot_be_are_named(request, data, text, says):
    with pytest.raises(InputError, match=says):
        build(text, request.getfixturevalue(data).task, 0)


def test_every_architecture_is_tried_here():
    assert {text.partition("(")[0] for _, text in EVERY} == set(NETWORKS)


@pytest.mark.parametrize("name", ["cpu:x", "tpu", "mps", "meta", *([] if torch.cuda.is_available() else ["cuda", "cuda:0"])])
def test_devices_that_are_not_here_are_refused(name):
    with pytest.raises(InputError, match="device="):
        pick_device(name)


def test_devices_that_are_here_are_taken():
    assert pick_device("cpu") == CPU
    assert pick_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize(("precision", "dtype"), [("float32", torch.float32), ("float64", torch.float64), ("auto", torch.float32)])
def test_precision_is_the_type_of_weights_and_outputs(precision, dtype):
    student = line("adam", precision)
    output = student.forward({"x": torch.zeros(2, 1)})
    assert {student.classifier.weight.dtype, output.logits.dtype, output.features.dtype} == {dtype}
    assert student.cast({"ids": torch.tensor([1])})["ids"].dtype == torch.int64
