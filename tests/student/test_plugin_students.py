"""Students whose network is a class of a user's: what they lack for knowledge, credit or a population is named."""

import numpy as np
import pytest
import torch
from plugin_networks import Layered, Like, Normed, meter_of, start, teach, with_layers  # noqa: F401 (Layered and Normed are looked up here by name)

from kd_env.envs import credit
from kd_env.errors import InputError


class Flattened(Like):
    """Layers without an axis for layers."""

    def forward(self, pixel_values, extra_outputs=frozenset()):
        return {**dict(zip(("logits", "features"), super().forward(pixel_values), strict=True)), "layers": pixel_values.flatten(1)}


class Headless(Like):
    def __init__(self, task, width=8):
        super().__init__(task, width)
        self.output = self.classifier
        del self.classifier

    def forward(self, pixel_values):
        features = self.hidden(pixel_values)
        return self.output(features), features


class Branching(Like):
    def hidden(self, pixel_values):
        hidden = super().hidden(pixel_values)
        return hidden if float(hidden.detach().sum()) > 0 else -hidden


class Drawn(Like):
    """Random features: a buffer that differs between seeds."""

    def __init__(self, task, width=8):
        super().__init__(task, width)
        self.register_buffer("shift", torch.randn(width))

    def hidden(self, pixel_values):
        return super().hidden(pixel_values) + self.shift


class NoForwardMode(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x):
        return x.relu()

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(output)

    @staticmethod
    def backward(ctx, gradient):
        (output,) = ctx.saved_tensors
        return gradient * (output > 0)


class BackwardOnly(Like):
    def hidden(self, pixel_values):
        return NoForwardMode.apply(super().hidden(pixel_values))


@pytest.fixture(scope="module")
def data(digits_data):
    return with_layers(digits_data)


def start_own(data, student, **keywords):
    """A run whose student is a class of this module."""
    return start(data, student, module=__name__, **keywords)


def test_head_credit_without_a_classifier_is_refused(data):
    for students in (1, 2):
        run = start_own(data, "Headless", num_students=students)
        teach(run, 1)
        assert credit.first_order(run, meter_of(run), ["response"])["response"].any(), "it needs no classifier"
        with pytest.raises(InputError, match="student 'test_plugin_students:Headless' has no attribute classifier; credit=head needs"):
            credit.head(run, meter_of(run), ["response"])


def test_an_operation_without_a_forward_mode_derivative_is_named(data):
    run = start_own(data, "BackwardOnly")
    teach(run, 1)
    with pytest.raises(InputError, match=r"student 'test_plugin_students:BackwardOnly': .*use another operation, or a credit other than"):
        credit.first_order(run, meter_of(run), ["response"])


@pytest.mark.parametrize(
    ("student", "knowledge", "says"),
    [
        (
            "Like",
            "response,layer",
            r"knowledge='response,layer': student 'test_plugin_students:Like' has no layers, which layer compares; leave layer out",
        ),
        ("Layered", "attention", r"has no attention, which attention compares; leave attention out"),
        (
            "Flattened",
            "layer,relation",
            r"has layers of shape \[1, 64\], expected 3 axes, which layer and relation compare; leave layer and relation out",
        ),
    ],
)
def test_types_that_compare_what_it_does_not_return_are_refused(data, student, knowledge, says):
    with pytest.raises(InputError, match=says):
        start_own(data, student, knowledge=knowledge)


@pytest.mark.parametrize(
    ("student", "says"),
    [
        ("Normed", r"num_students: module\.norm is a BatchNorm1d, which mixes the examples of a batch; use LayerNorm or GroupNorm"),
        (
            "Branching",
            r"running several students at once under torch.func.vmap fails with RuntimeError: .*test_plugin_students\.py, line \d+\)",
        ),
        (
            "Drawn",
            r"num_students: buffer module\.shift of a PluginNetwork differs between students, but they share their buffers; make it equal",
        ),
    ],
)
def test_what_cannot_learn_in_a_population_learns_alone(data, student, says):
    assert np.isfinite(teach(start_own(data, student, knowledge="response"), 2)).all()
    with pytest.raises(InputError, match=says):
        start_own(data, student, knowledge="response", num_students=2)
