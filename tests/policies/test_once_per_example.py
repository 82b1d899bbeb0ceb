"""A function of the teachers' outputs is computed once for each training example, and anew where the teachers change."""

import copy

import numpy as np
import pytest
import torch

from kd_env.benchmark.run_trial import make_env
from kd_env.benchmark.trial import Trial
from kd_env.policies import once_per_example, registry
from kd_env.policies.context import PolicyContext

SETTINGS = {"updates": 6, "student": "mlp(width=8)", "batch_size": 8, "reward_labels": 40}


class Counted:
    """Sums logits and first features, and counts the rows that it is called with."""

    def __init__(self):
        self.rows = []

    def __call__(self, teacher_logits, teacher_features):
        self.rows.append(len(teacher_logits))
        return teacher_logits.sum(2) + teacher_features[0].sum(1, keepdim=True)


def environment(pool, policy="uniform", **settings):
    env = make_env(Trial("digits", policy, 0, teachers=pool, settings={**SETTINGS, **settings}))
    env.reset(seed=0)
    return env


def steps(env, count):
    """The mini-batches of ``count`` updates, each by a fresh context of the environment."""
    context = PolicyContext(env, "test", "teacher outputs")
    for _ in range(count):
        yield context.batch()
        env.unwrapped.selection.distillation.skip()


@pytest.mark.parametrize("settings", [{}, {"precision": "float64"}, {"calibrate_teachers": True}], ids=str)
def test_values_are_those_of_the_mini_batch_and_each_row_is_computed_once(settings, monkeypatch):
    monkeypatch.setattr(once_per_example, "CHUNK", 1000)
    env, function = environment("digits/mixed", **settings), Counted()
    of_batch = PolicyContext(env, "test", "teacher outputs").once_per_example(function)
    for batch in steps(env, 3):
        torch.testing.assert_close(of_batch(batch), Counted()(batch.teacher_logits, batch.teacher_features), rtol=0, atol=1e-4)
    num_examples = len(env.unwrapped.selection.data.labels["train"])
    assert sum(function.rows) == num_examples
    assert max(function.rows) == 1000 < num_examples


def test_drifting_teachers_are_read_anew_in_each_mini_batch():
    env, function = environment("digits/drift"), Counted()
    of_batch = PolicyContext(env, "test", "teacher outputs").once_per_example(function)
    for batch in steps(env, 6):  # half of them after the change
        assert torch.equal(of_batch(batch), Counted()(batch.teacher_logits, batch.teacher_features))
    assert function.rows == [8] * 6


def test_live_teachers_are_read_anew_in_each_mini_batch():
    env, function = environment("digits/mixed", teacher_answers="live"), Counted()
    of_batch = PolicyContext(env, "test", "teacher outputs").once_per_example(function)
    for batch in steps(env, 2):
        assert torch.equal(of_batch(batch), Counted()(batch.teacher_logits, batch.teacher_features))
    assert function.rows == [8, 8]


def test_other_temperatures_and_forgetting_compute_all_values_again():
    env, function, temperatures = environment("digits/mixed"), Counted(), [None]
    selection = env.unwrapped.selection
    of_batch = once_per_example.OncePerExample(selection, function, lambda: temperatures[0])
    batch = next(steps(env, 1))
    plain = of_batch(batch)
    temperatures[0] = np.full(4, 2.0)
    halved = of_batch(batch)
    features = batch.teacher_features[0].sum(1, keepdim=True)
    torch.testing.assert_close(halved - features, (plain - features) / 2, rtol=0, atol=1e-4)
    of_batch.forget()
    of_batch(batch)
    assert len(function.rows) == 3


@pytest.mark.long
@pytest.mark.parametrize("policy", ["held_credit", "crossfit_credit"])
def test_an_agent_that_loads_another_start_weighs_with_it(policy):
    env = environment("digits/mixed", policy)
    first, second = (registry.find(policy).build(env, seed) for seed in (0, 1))
    batch = first.context.batch()
    before, expected = (agent.policies.propose(batch).policies[0] for agent in (first, second))
    assert not torch.equal(before, expected)
    own_state = copy.deepcopy(first.state())
    first.load_state(second.state())
    assert torch.equal(first.policies.propose(batch).policies[0], expected)
    first.load_state(own_state)  # other tests may share its stack
    assert torch.equal(first.policies.propose(batch).policies[0], before)
