"""Students whose network is a class of a user's learn as built-in ones: alone, in a population, with credit, and in snapshots."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from plugin_networks import equal, meter_of, start, teach, with_layers

from kd_env.envs import credit


@pytest.fixture(scope="module")
def data(digits_data):
    return with_layers(digits_data)


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


def test_a_student_of_a_population_begins_anew_and_leaves_it(data):
    run = start(data, "Like", num_students=2)
    teach(run, 2)
    run.reset_student(1, 30)
    fresh = start(data, "Like", seed=30)
    assert equal(run.student.state_of(1), fresh.student.state())
    alone = run.of_student(0)
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
        student="plugin_networks:Like(width=5)",
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
