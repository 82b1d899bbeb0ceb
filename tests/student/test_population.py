"""S networks in one batched step are S students of their own."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from kd_env.errors import InputError
from kd_env.models.encode import EVALUATION_BATCH, take
from kd_env.models.networks import MLP, build
from kd_env.student.optimizer import OptimizerOptions
from kd_env.student.population import Population, refuse_unbatched_layers
from kd_env.student.student import Student
from kd_env.types import ModelOutput

CPU = torch.device("cpu")
MLP_, VIT, BERT = "mlp(width=12)", "tiny-vit(width=8,layers=1)", "tiny-bert(width=8,layers=1,dropout=0)"
MATERIAL = {MLP_: "digits_data", VIT: "digits_data", BERT: "text_data"}
ADAM, DECAYED = "adam(lr=0.003)", "adam(lr=0.003,weight_decay=0.01)"
ADAMW = "adamw(lr=0.003,weight_decay=0.1,warmup=0.1,decay=linear)"
SGD = "sgd(lr=0.02,weight_decay=0.01,decay=linear)"
UPDATES = 300
CASES = [
    *[(MLP_, optimizer, UPDATES) for optimizer in (ADAM, DECAYED, ADAMW, SGD)],
    *[(network, ADAMW, 60) for network in (VIT, BERT)],
    *[pytest.param(network, optimizer, UPDATES, marks=pytest.mark.slow) for network in (VIT, BERT) for optimizer in (ADAM, ADAMW, SGD)],
]


def both(data, text, optimizer="adam", precision="float64", students=2, first=0):
    """A population, and its students alone."""
    options = OptimizerOptions.of(optimizer)
    networks = [[build(text, data.task, first + s) for s in range(students)] for _ in range(2)]
    return Population(networks[0], options, CPU, precision), [Student(network, options, CPU, precision) for network in networks[1]]


def teach(data, population, apart, updates, start=0, of=UPDATES, batch=8):
    """Soft labels of the first teacher, for each student on rows of its own; ``progress`` of student s lags s updates behind."""
    students, size = population.num_students, len(data.labels["train"])
    for update in range(start, start + updates):
        rows = np.random.default_rng([3, update]).integers(size, size=(students, batch))
        log_p = torch.from_numpy(data.bank.gather("train", rows.ravel()).logits[:, 0]).to(population.dtype).log_softmax(1)
        progress = np.maximum(update - np.arange(students), 0) / of

        def divergence(output, log_p):
            return (log_p.exp() * (log_p - output.logits.log_softmax(1))).sum(1)

        output = population.forward(take(data.inputs["train"], rows.ravel(), CPU))
        population.step(divergence(output, log_p).view(students, -1).mean(1).sum(), progress)
        for s, student in enumerate(apart):
            output = student.forward(take(data.inputs["train"], rows[s], CPU))
            student.step(divergence(output, log_p[s * batch : (s + 1) * batch]).mean(), progress[s])


def states(population):
    return [population.state_of(s) for s in range(population.num_students)]


def largest_difference(state, other):
    """In weights, relative where they are above .001."""
    assert state.keys() == other.keys()
    weights = [name for name in state if name.startswith("network.")]
    return max(float(((state[name] - other[name]).abs() / other[name].abs().clamp_min(1e-3)).max()) for name in weights)


@pytest.mark.parametrize(("text", "optimizer", "updates"), CASES)
def test_it_learns_what_its_students_learn_alone(request, monkeypatch, text, optimizer, updates):
    if text == VIT:  # Transformers takes its softmax in float32, of whose rounding Adam makes a drift of the key's bias
        monkeypatch.setattr("torch.nn.functional.softmax", lambda scores, dim, dtype: scores.softmax(dim))
    data = request.getfixturevalue(MATERIAL[text])
    population, apart = both(data, text, optimizer, students=3 if text == MLP_ else 2)
    inputs = data.inputs["validation"]
    before = population.predict(inputs, shared=True)
    teach(data, population, apart, updates, of=updates)
    after = population.predict(inputs, shared=True)
    assert (after - before).abs().max() > (1.0 if updates == UPDATES else 0.2), "something was learned"
    torch.testing.assert_close(after, torch.cat([student.predict(inputs) for student in apart]), rtol=1e-7, atol=1e-8)
    for state, student in zip(states(population), apart, strict=True):
        assert largest_difference(state, student.state()) < 1e-5
    evaluated = np.stack(population.evaluate(inputs, data.labels["validation"], shared=True), 1)
    expected = np.concatenate([np.stack(student.evaluate(inputs, data.labels["validation"]), 1) for student in apart])
    np.testing.assert_allclose(evaluated, expected, rtol=1e-7)


@pytest.mark.parametrize(("text", "optimizer", "updates"), [case for case in CASES if case[:2] != (MLP_, DECAYED)])
def test_in_single_precision_it_says_what_its_students_say(request, text, optimizer, updates):
    """Within 1e-5 of logits around ten for the MLP; within 2e-4 for the others, whose rounding passes through softmax and LayerNorm."""
    data = request.getfixturevalue(MATERIAL[text])
    population, apart = both(data, text, optimizer, "float32")
    teach(data, population, apart, updates, of=updates)
    inputs = data.inputs["validation"]
    together, alone = population.predict(inputs, shared=True), torch.cat([student.predict(inputs) for student in apart])
    assert together.dtype == torch.float32
    assert (together - alone).abs().max() < (1e-5 if text == MLP_ else 2e-4)


@pytest.mark.parametrize("optimizer", [ADAM, ADAMW, SGD])
def test_moments_and_preconditioners_are_the_students_own(digits_data, optimizer):
    population, apart = both(digits_data, MLP_, optimizer)
    for updates in (0, 5):
        teach(digits_data, population, apart, updates)
        for state, student in zip(states(population), apart, strict=True):
            alone = student.state()
            assert state.keys() == alone.keys()
            for name, value in alone.items():
                torch.testing.assert_close(state[name], value, rtol=1e-10, atol=1e-12)
        (scale,) = population.preconditioner()
        parts = [zip(student.preconditioner(), student.parameters, strict=True) for student in apart]
        scales = torch.stack(
            [torch.cat([torch.as_tensor(part).expand(parameter.shape).flatten() for part, parameter in pairs]) for pairs in parts]
        )
        torch.testing.assert_close(torch.as_tensor(scale).expand(population.theta.shape).double(), scales.double(), rtol=1e-6, atol=0)


@pytest.mark.parametrize("optimizer", [ADAM, ADAMW, SGD])
@pytest.mark.parametrize("taught", [0, 6])
def test_after_is_what_a_step_leaves_and_changes_nothing(digits_data, optimizer, taught):
    population, apart = both(digits_data, MLP_, optimizer)
    teach(digits_data, population, apart, taught)
    before = copy.deepcopy(population.state())
    inputs, labels = take(digits_data.inputs["train"], slice(0, 16), CPU), digits_data.labels["train"][:16]
    loss = cross_entropy(population.forward(inputs).logits, labels, reduction="sum") / 8
    gradient = torch.autograd.grad(loss, population.parameters, retain_graph=True)
    (after,) = population.after(gradient, np.array([0.5, 0.2]))
    assert all(torch.equal(value, before[name]) for name, value in population.state().items())
    population.step(loss, np.array([0.5, 0.2]))
    torch.testing.assert_close(after, population.theta.detach(), rtol=0, atol=0)
    assert not torch.equal(after, before["theta"])


def test_who_does_not_learn_stays_to_the_last_bit(digits_data):
    population, apart = both(digits_data, MLP_, ADAMW, students=3)
    teach(digits_data, population, apart, 4)
    before = states(population)
    inputs = take(digits_data.inputs["train"], slice(0, 24), CPU)
    loss = cross_entropy(population.forward(inputs).logits, digits_data.labels["train"][:24], reduction="sum") / 8
    population.step(loss, 0.5, np.array([True, False, True]))
    after = states(population)
    assert all(torch.equal(after[1][name], before[1][name]) for name in before[1])
    for s in (0, 2):
        rows = slice(8 * s, 8 * s + 8)
        apart[s].step(cross_entropy(apart[s].forward(take(inputs, rows, CPU)).logits, digits_data.labels["train"][rows]), 0.5)
        for name, value in apart[s].state().items():
            torch.testing.assert_close(after[s][name], value, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("text", [MLP_, VIT, BERT])
def test_what_is_not_finite_stays_where_it_is(request, text, value):
    data = request.getfixturevalue(MATERIAL[text])
    (broken, _), (whole, _) = (both(data, text, ADAM, students=3) for _ in range(2))
    with torch.no_grad():
        broken.theta[1, -3:] = value  # biases of the classifier
    for population in (broken, whole):
        teach(data, population, [], 3)
    spoiled = ~broken.theta[1].isfinite()
    assert spoiled.all() or (text == BERT and spoiled.sum() > 400), "all but the words that were not read"
    for s in (0, 2):
        for name, kept in whole.state_of(s).items():
            assert torch.equal(broken.state_of(s)[name], kept), name


@pytest.mark.parametrize("optimizer", [ADAMW, SGD])
def test_a_new_student_begins_with_a_schedule_and_moments_of_its_own(digits_data, optimizer):
    population, apart = both(digits_data, MLP_, optimizer, students=3)
    teach(digits_data, population, apart, 7)
    kept = [population.state_of(s) for s in (0, 2)]
    population.reset_student(1, build(MLP_, digits_data.task, 40))
    assert all(torch.equal(population.state_of(s)[name], value) for s, old in zip((0, 2), kept, strict=True) for name, value in old.items())
    apart[1] = Student(build(MLP_, digits_data.task, 40), apart[0].options, CPU, "float64")
    assert population.state_of(1).keys() == apart[1].state().keys(), "no step has been taken"
    teach(digits_data, population, apart, 20, start=7)
    for s, student in enumerate(apart):
        for name, value in student.state().items():
            torch.testing.assert_close(population.state_of(s)[name], value, rtol=1e-8, atol=1e-11)


@pytest.mark.parametrize("optimizer", [ADAM, ADAMW, SGD])
def test_a_lone_student_takes_over_where_it_stood(digits_data, optimizer):
    population, _ = both(digits_data, MLP_, optimizer)
    teach(digits_data, population, [], 9)
    apart = [Student(build(MLP_, digits_data.task, 80), OptimizerOptions.of(optimizer), CPU, "float64") for _ in range(2)]
    for s, student in enumerate(apart):
        student.load_state(population.state_of(s))
    teach(digits_data, population, apart, 40, start=9)
    for state, student in zip(states(population), apart, strict=True):
        for name, value in student.state().items():
            torch.testing.assert_close(state[name], value, rtol=1e-10, atol=1e-10)


def test_its_state_comes_back_to_the_last_bit(digits_data):
    population, other = (both(digits_data, MLP_, ADAMW, first=first)[0] for first in (0, 9))
    teach(digits_data, population, [], 5)
    other.load_state({name: tensor.clone() for name, tensor in population.state().items()})
    for students in (population, other):
        teach(digits_data, students, [], 5, start=5)
    for name, value in population.state().items():
        assert torch.equal(other.state()[name], value), name


@pytest.mark.parametrize("count", [5, EVALUATION_BATCH, 2 * EVALUATION_BATCH + 7])
def test_many_examples_are_predicted_in_order_shared_or_not(digits_data, count):
    population, apart = both(digits_data, MLP_, students=3)
    shared = take(digits_data.inputs["train"], slice(0, count), CPU)
    labels = digits_data.labels["train"][:count]
    expected = torch.stack([student.predict(shared) for student in apart])
    logits = population.predict(shared, shared=True)
    assert logits.shape == (3 * count, 10)
    torch.testing.assert_close(logits.view(3, count, 10), expected, rtol=0, atol=1e-12)
    repeated = {name: tensor.repeat(3, 1, 1, 1) for name, tensor in shared.items()}
    torch.testing.assert_close(population.predict(repeated), logits, rtol=0, atol=1e-12)
    for evaluated in (population.evaluate(shared, labels, shared=True), population.evaluate(repeated, labels.repeat(3))):
        np.testing.assert_allclose(
            np.stack(evaluated), np.hstack([np.stack(student.evaluate(shared, labels)) for student in apart]), rtol=1e-10
        )


def test_each_is_measured_on_rows_of_its_own(digits_data):
    population, apart = both(digits_data, MLP_, students=3)
    rows = np.random.default_rng(0).permutation(600)
    inputs = take(digits_data.inputs["train"], rows, CPU)
    loss, accuracy = population.evaluate(inputs, digits_data.labels["train"][rows])
    for s, student in enumerate(apart):
        part = rows[200 * s : 200 * s + 200]
        expected = student.evaluate(take(digits_data.inputs["train"], part, CPU), digits_data.labels["train"][part])
        assert (loss[s], accuracy[s]) == pytest.approx((expected[0][0], expected[1][0]), rel=1e-10)
    assert len(set(loss.tolist())) == 3


@pytest.mark.parametrize("text", [MLP_, BERT])
def test_what_it_shows_is_what_its_students_show(request, text):
    data = request.getfixturevalue(MATERIAL[text])
    population, apart = both(data, text)
    extra_outputs = frozenset({"layers"} | ({"attention"} if text == BERT else set()))
    inputs = take(data.inputs["train"], slice(0, 12), CPU)
    output = population.forward(inputs, extra_outputs)
    expected = [student.forward(take(inputs, slice(6 * s, 6 * s + 6), CPU), extra_outputs) for s, student in enumerate(apart)]
    for part in ("logits", "features", *extra_outputs):
        torch.testing.assert_close(getattr(output, part), torch.cat([getattr(alone, part) for alone in expected]), rtol=0, atol=1e-7)
    at = population.forward_at([2 * population.theta], inputs)
    assert not torch.allclose(at.logits, output.logits)
    features = output.features.detach()
    torch.testing.assert_close(population.classify(features, population.parameters), output.logits, rtol=0, atol=1e-12)
    grouped = population.classify(features, [2 * population.theta.detach()])
    torch.testing.assert_close(grouped, 2 * output.logits, rtol=0, atol=1e-12)


def test_dropout_draws_a_mask_for_each_row_and_stops_in_evaluation(digits_data):
    network = [build("mlp(width=32,dropout=0.5)", digits_data.task, 0) for _ in range(2)]
    population = Population(network, OptimizerOptions(), CPU)
    assert population.has_dropout
    image = {"pixel_values": digits_data.inputs["train"]["pixel_values"][:1].repeat(12, 1, 1, 1)}
    torch.manual_seed(0)
    first = population.forward(image).features
    torch.manual_seed(0)
    assert torch.equal(population.forward(image).features, first)
    assert not torch.equal(population.forward(image).features, first)
    masks = {row.tobytes() for row in (first == 0).numpy()}
    assert len(masks) == 12, "one image, twelve masks"
    logits = population.predict(image)
    assert (logits == logits[0]).all()
    assert population.network.training


def test_its_parameters_are_one_matrix_in_the_networks_order(digits_data):
    population, apart = both(digits_data, MLP_)
    (theta,) = population.parameters
    assert theta is population.theta
    assert theta.requires_grad
    for s, student in enumerate(apart):
        assert torch.equal(theta[s], torch.cat([parameter.flatten() for parameter in student.parameters]))


@pytest.mark.parametrize(("precision", "dtype"), [("float32", torch.float32), ("float64", torch.float64), ("auto", torch.float32)])
def test_precision_is_the_type_of_weights_and_outputs(digits_data, precision, dtype):
    population, _ = both(digits_data, MLP_, precision=precision)
    output = population.forward(take(digits_data.inputs["train"], slice(0, 4), CPU))
    assert {population.theta.dtype, output.logits.dtype, output.features.dtype} == {dtype}
    assert population.cast({"ids": torch.tensor([1])})["ids"].dtype == torch.int64


class Normed(MLP):
    """An MLP with another layer behind the first."""

    def __init__(self, layer):
        super().__init__(64, 10)
        self.body.append(layer)


@pytest.mark.parametrize("layer", [nn.BatchNorm1d(24), nn.SyncBatchNorm(24), nn.InstanceNorm1d(24, track_running_stats=True)])
def test_layers_that_mix_examples_are_refused_by_name(layer):
    says = rf"num_students: body\.2 is a {type(layer).__name__}, which mixes the examples of a batch; use LayerNorm or GroupNorm"
    with pytest.raises(InputError, match=says):
        Population([Normed(layer) for _ in range(2)], OptimizerOptions(), CPU)


@pytest.mark.parametrize("layer", [nn.LayerNorm(24), nn.GroupNorm(4, 24)])
def test_layers_that_do_not_mix_examples_learn_like_the_others(digits_data, layer):
    networks = [Normed(copy.deepcopy(layer)) for _ in range(2)]
    population = Population(copy.deepcopy(networks), OptimizerOptions.of(ADAM), CPU, "float64")
    apart = [Student(network, OptimizerOptions.of(ADAM), CPU, "float64") for network in networks]
    teach(digits_data, population, apart, 10)
    for state, student in zip(states(population), apart, strict=True):
        assert largest_difference(state, student.state()) < 1e-7


def test_attention_that_does_not_batch_is_refused_by_name():
    from transformers import ViTConfig, ViTForImageClassification

    def vit(attention):
        size = {"image_size": 8, "patch_size": 4, "num_channels": 1, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
        return ViTForImageClassification(ViTConfig(**size, attn_implementation=attention))

    says = r"num_students: ViTFor\w+ computes attention by 'sdpa'; load it with attn_implementation=\"eager\""
    with pytest.raises(InputError, match=says):
        Population([vit("sdpa") for _ in range(2)], OptimizerOptions(), CPU)
    refuse_unbatched_layers(vit("eager"))


def test_two_outputs_are_enough():
    class Line(nn.Module):
        def __init__(self, slope):
            super().__init__()
            self.classifier = nn.Linear(1, 2)
            nn.init.constant_(self.classifier.weight, slope)
            nn.init.zeros_(self.classifier.bias)

        def forward(self, x):
            return ModelOutput(self.classifier(x), x)

    population = Population([Line(1.0), Line(2.0)], OptimizerOptions.of("sgd(lr=0.5)"), CPU, "float64")
    output = population.forward({"x": torch.tensor([[1.0], [10.0], [1.0], [10.0]])})
    assert output.logits[:, 0].tolist() == [1.0, 10.0, 2.0, 20.0]
    population.step((output.logits[:, 0] * torch.tensor([1.0, 1.0, 0.0, 3.0])).sum(), [0.0, 0.0])
    assert population.theta[:, 0].tolist() == [1.0 - 0.5 * 11, 2.0 - 0.5 * 30], "by hand"
    assert population.theta[:, 1].tolist() == [1.0, 2.0]
