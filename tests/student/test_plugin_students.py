"""Students whose network is a class of a user's: alone, in a population, with credit, and in snapshots."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import nn

from kd_env.bank.bank import open_bank
from kd_env.distillation import Distillation, EncodedTask
from kd_env.distillation.reward_meter import RewardMeter
from kd_env.distillation.settings import distillation_settings
from kd_env.envs import credit
from kd_env.errors import InputError
from kd_env.teachers import load_pool
from kd_env.types import Decision, ModelOutput

HERE = f"{__name__}:"


class Like(nn.Module):
    """The built-in ``mlp`` once more: the same layers, drawn in the same order."""

    def __init__(self, task, width=8):
        super().__init__()
        self.body = nn.Linear(task.train.inputs[0].size, width)
        self.classifier = nn.Linear(width, task.num_classes)

    def hidden(self, pixel_values):
        return self.body(pixel_values.flatten(1)).relu()

    def forward(self, pixel_values):
        features = self.hidden(pixel_values)
        return self.classifier(features), features


class Layered(Like):
    """The same with its hidden layer as layers."""

    def forward(self, pixel_values, extra_outputs=frozenset()):
        logits, features = super().forward(pixel_values)
        return ModelOutput(logits, features, features[:, None] if "layers" in extra_outputs else None)


class Flattened(Like):
    """Layers without an axis for layers."""

    def forward(self, pixel_values, extra_outputs=frozenset()):
        return {**dict(zip(("logits", "features"), super().forward(pixel_values), strict=True)), "layers": pixel_values.flatten(1)}


class Dropping(Like):
    """Dropout that no module shows."""

    def hidden(self, pixel_values):
        return nn.functional.dropout(super().hidden(pixel_values), 0.3, self.training)


class Normed(Like):
    """With BatchNorm and a classifier without bias."""

    def __init__(self, task, width=8):
        super().__init__(task, width)
        self.norm = nn.BatchNorm1d(width)
        self.classifier = nn.Linear(width, task.num_classes, bias=False)

    def hidden(self, pixel_values):
        return self.norm(super().hidden(pixel_values))


class Unbiased(Like):
    def __init__(self, task, width=8):
        super().__init__(task, width)
        self.classifier = nn.Linear(width, task.num_classes, bias=False)


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
    """Digits whose bank keeps layers."""
    task = digits_data.task
    return EncodedTask.of(task, open_bank(task, load_pool("digits/experts", task), keep=frozenset({"layers"})))


def start(data, student, seed=0, **keywords):
    keywords = {"batch_size": 8, "updates": 20, "knowledge": "response,hint", "optimizer": "adam(lr=0.01)", **keywords}
    return Distillation(
        data, distillation_settings(data.task, student=student if student.startswith("mlp") else f"{HERE}{student}", **keywords), seed
    )


def meter_of(run, examples=256):
    return RewardMeter(run.reward_split, run.seeds.tolist(), examples, measure="loss")


def teach(run, updates=5):
    rows = run.num_students * run.settings.batch_size
    losses = []
    for _ in range(updates):
        run.observe()
        weights = torch.full((rows, run.num_teachers), 1.0 / run.num_teachers, dtype=run.student.dtype)
        strengths = dict.fromkeys(run.loss.terms, 1.0) | ({"label": 0.2} if run.settings.uses_hard_labels else {})
        losses.append(run.apply(Decision(dict.fromkeys(run.loss.terms, weights), strengths, 2.0)).loss)
    return np.stack(losses)


def equal(state, other):
    return state.keys() == other.keys() and all(torch.equal(state[name], other[name]) for name in state)


@pytest.mark.parametrize("students", [1, 3])
@pytest.mark.parametrize(("name", "knowledge"), [("Like", "response,hint"), ("Layered", "response,layer,relation,feature_ensemble")])
def test_it_learns_as_a_built_in_network_of_the_same_layers_to_the_bit(data, students, name, knowledge):
    plugin, built_in = (start(data, text, knowledge=knowledge, num_students=students) for text in (name, "mlp(width=8)"))
    assert np.array_equal(teach(plugin), teach(built_in))
    assert all(torch.equal(first, second) for first, second in zip(plugin.student.parameters, built_in.student.parameters, strict=True))
    assert np.array_equal(plugin.validate()[0], built_in.validate()[0])


@pytest.mark.parametrize("students", [1, 2])
@pytest.mark.parametrize("name", ["first_order", "head"])
def test_credit_is_that_of_a_built_in_network(data, students, name):
    runs = [start(data, text, num_students=students) for text in ("Like", "mlp(width=8)")]
    values = []
    for run in runs:
        teach(run, 2)
        values.append(credit.CREDITS[name](run, meter_of(run), ["response", "hint", "label"]))
    assert all(torch.equal(values[0][key], values[1][key]) for key in values[1])
    assert values[0]["response"].any()


@pytest.mark.parametrize(("name", "students"), [("Like", 1), ("Like", 2), ("Dropping", 1), ("Dropping", 2), ("Normed", 1)])
def test_a_snapshot_carries_on_to_the_bit(data, name, students):
    run = start(data, name, num_students=students)
    teach(run, 3)
    before, logits = run.snapshot(), run.observe().student.logits
    observed = run.snapshot()
    expected = teach(run, 3), run.student.state()
    for state in (before, observed):
        other = start(data, name, seed=9, num_students=students)
        other.restore(state)
        assert torch.equal(other.observe().student.logits, logits)
        assert np.array_equal(teach(other, 3), expected[0])
        assert equal(other.student.state(), expected[1])


def test_dropout_stops_in_evaluation_though_no_module_shows_it(data):
    run = start(data, "Dropping")
    assert run.student.has_dropout
    inputs = data.inputs["validation"]
    assert torch.equal(run.student.predict(inputs), run.student.predict(inputs))
    assert not torch.equal(run.student.forward(inputs).logits, run.student.predict(inputs))


def test_running_statistics_follow_the_steps_and_no_pass_else(data):
    run = start(data, "Normed")
    norm = run.student.network.network.module.norm
    batch = data.inputs["train"]["pixel_values"][run.observe().example_ids].flatten(1)
    credit.first_order(run, meter_of(run), ["response"])
    run.validate()
    assert norm.num_batches_tracked == 0
    assert not norm.running_mean.any()
    hidden = run.student.network.network.module.body(batch).relu().detach()
    teach(run, 1)
    assert norm.num_batches_tracked == 1
    torch.testing.assert_close(norm.running_mean, 0.1 * hidden.mean(0))
    run.skip()
    run.observe()
    run.skip()
    teach(run, 1)
    assert norm.num_batches_tracked == 2
    other = start(data, "Normed", seed=5)
    other.restore(run.snapshot())
    assert torch.equal(other.student.network.network.module.norm.running_mean, norm.running_mean)


def test_first_order_credit_through_batch_norm_is_the_derivative(data):
    run = start(data, "Normed", optimizer="sgd(lr=0.0001)", precision="float64", knowledge="response")
    teach(run, 2)
    meter = meter_of(run, examples=20)
    first_order, exact = (credit.CREDITS[name](run, meter, ["response"])["response"] for name in ("first_order", "counterfactual"))
    torch.testing.assert_close(first_order, exact, rtol=0.02, atol=0.02 * float(exact.abs().max()))


@pytest.mark.parametrize("students", [1, 2])
def test_head_credit_takes_a_classifier_without_bias(data, students):
    run = start(data, "Unbiased", optimizer="sgd(lr=0.001)", precision="float64", knowledge="response", num_students=students)
    teach(run, 1)
    features = run.observe().student.features
    torch.testing.assert_close(run.student.classify(features, run.student.parameters), run.observe().student.logits)
    assert credit.head(run, meter_of(run), ["response"])["response"].any()


def test_head_credit_without_a_classifier_is_refused(data):
    for students in (1, 2):
        run = start(data, "Headless", num_students=students)
        teach(run, 1)
        assert credit.first_order(run, meter_of(run), ["response"])["response"].any(), "it needs no classifier"
        with pytest.raises(InputError, match="student 'test_plugin_students:Headless' has no attribute classifier; credit=head needs"):
            credit.head(run, meter_of(run), ["response"])


def test_an_operation_without_a_forward_mode_derivative_is_named(data):
    run = start(data, "BackwardOnly")
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
        start(data, student, knowledge=knowledge)


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
    assert np.isfinite(teach(start(data, student, knowledge="response"), 2)).all()
    with pytest.raises(InputError, match=says):
        start(data, student, knowledge="response", num_students=2)


def test_a_student_of_a_population_begins_anew_and_leaves_it(data):
    run = start(data, "Like", num_students=2)
    teach(run, 2)
    run.reset_student(1, 30)
    fresh = start(data, "Like", seed=30)
    assert equal(run.student.state_of(1), fresh.student.state())
    alone = run.member(0)
    assert alone.num_students == 1
    assert equal(alone.student.state(), run.student.state_of(0))


def test_a_lone_student_begins_anew(data):
    run, fresh = start(data, "Like"), start(data, "Like", seed=30)
    teach(run, 2)
    run.reset_student(0, 30)
    assert equal(run.student.state(), fresh.student.state())
    assert np.array_equal(teach(run, 3), teach(fresh, 3))


@pytest.mark.parametrize(("students", "options"), [(1, {"credit": "first_order"}), (2, {"credit": "head"}), (2, {"action": "weights"})])
def test_it_is_a_student_of_an_environment(students, options):
    env = gym.make_vec(
        "kd_env/TeacherSelection-v0",
        num_envs=4 * students,
        vectorization_mode="vector_entry_point",
        task="digits",
        student=f"{HERE}Like(width=5)",
        updates=3,
        num_students=students,
        autoreset_mode="same_step",
        **options,
    )
    env.action_space.seed(0)
    env.reset(seed=0)
    for _ in range(3):
        _, reward, terminated, _, _ = env.step(env.action_space.sample())
    assert np.isfinite(reward).all()
    assert terminated.all()
