"""A population shows, predicts and measures what its students do alone, and refuses networks that do not batch."""

import copy

import numpy as np
import pytest
import torch
from batched_students import ADAM, BERT, CPU, MATERIAL, MLP_, both, largest_difference, states, teach
from torch import nn

from kd_env.errors import InputError
from kd_env.models.encode import EVALUATION_BATCH, take
from kd_env.models.networks import MLP, build
from kd_env.student.optimizer import OptimizerOptions
from kd_env.student.population import Population, refuse_unbatched_layers
from kd_env.student.student import Student
from kd_env.types import ModelOutput


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
