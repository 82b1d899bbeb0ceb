"""Policies of a population that act and learn in batched passes do what they do one after the other."""

import gymnasium as gym
import numpy as np
import pytest
import torch

from agents.gradient_credit import GradientCredit
from agents.network_stack import NetworkStack, clipped_each
from kd_env.errors import InputError
from kd_env.policies import episode, registry, run_population_episode
from kd_env.policies.episode import PopulationEpisode, stack_of, start_episode
from kd_env.policies.protocol import NotStackable

SEEDS = (3, 0, 8)
POLICIES = (
    "reinforce",
    "reinforce(window=3,student_warmup=2)",
    "reinforce(baseline=False)",
    "gradient_credit",
    "gradient_credit(router_start=True)",
    "held_credit",
    "crossfit_credit(sharpness=3)",
)


def population(policy, updates=9, **options):
    policy_class = registry.find(policy)
    options = {**policy_class.env_options, "updates": updates, "reward_labels": 60, "autoreset_mode": "same_step", **options}
    options.pop("granularity")
    slots = {"num_envs": 24, "num_students": 3, "vectorization_mode": "vector_entry_point"}
    env = gym.make_vec("kd_env/TeacherSelection-v0", task="digits", student="mlp(width=8)", **slots, **options).unwrapped
    return env, [policy_class.build(env, seed, student) for student, seed in enumerate(SEEDS)]


def numbers_of(value):
    """Yield all tensors and numbers of a state, in their order."""
    if isinstance(value, dict):
        value = [value[key] for key in sorted(value, key=str)]
    if isinstance(value, list | tuple):
        for part in value:
            yield from numbers_of(part)
    elif isinstance(value, torch.Tensor | float | int):
        yield torch.as_tensor(value).double()


def states(policies):
    return [tensor.clone() for policy in policies for tensor in numbers_of(policy.state())]


def first_parameters(policies):
    return [policy.optimizer.param_groups[0]["params"][0] for policy in policies]


@pytest.mark.parametrize("policy", POLICIES)
def test_a_stack_does_what_separate_policies_do(policy, monkeypatch):
    env, stacked = population(policy)
    first = states(stacked)
    run_population_episode(env, stacked, SEEDS)
    monkeypatch.setattr(episode, "stack_of", lambda policies: None)
    env, separate = population(policy)
    run_population_episode(env, separate, SEEDS)
    expected = states(separate)
    assert len(first) < len(expected), "optimizers have a state when they have made steps"
    for tensor, of_separate in zip(states(stacked), expected, strict=True):
        torch.testing.assert_close(tensor, of_separate, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("policy", ["reinforce", "gradient_credit"])
def test_the_policies_share_memory_until_a_student_is_finished(policy):
    env, policies = population(policy)
    taught = PopulationEpisode(env, policies, start_episode(env, policies, SEEDS))
    for _ in range(4):
        taught.step()
    storages = {parameter.data.untyped_storage().data_ptr() for parameter in first_parameters(policies)}
    assert len(storages) == 1, "they are views of one tensor"
    while not taught.state.over.any():
        taught.step()
    storages = {parameter.data.untyped_storage().data_ptr() for parameter in first_parameters(policies)}
    assert len(storages) == 3
    parameters = zip(policies, first_parameters(policies), strict=True)
    assert len({policy.optimizer.state[parameter]["step"].data_ptr() for policy, parameter in parameters}) == 3


def test_a_diverged_student_ends_the_stack_and_its_policy_stops():
    env, policies = population("gradient_credit")
    taught = PopulationEpisode(env, policies, start_episode(env, policies, SEEDS))
    for _ in range(3):
        taught.step()
    for parameter in env.selection.distillation.student.parameters:
        parameter.data[1] = np.nan
    taught.step()
    assert taught.state.over.tolist() == [False, True, False]
    before = [states([policy]) for policy in policies]
    taught.step()
    changed = [not all(map(torch.equal, states([policy]), old)) for policy, old in zip(policies, before, strict=True)]
    assert changed == [True, False, True]
    assert [int(policy.optimizer.state[policy.policy.context.weight]["step"]) for policy in policies] == [5, 4, 5]


class Other(GradientCredit):
    """Acts in its own way, so it must not be stacked as its base class."""


def test_policies_that_differ_in_more_than_their_seeds_are_not_stacked():
    _, policies = population("gradient_credit")
    assert stack_of(policies) is not None
    assert stack_of(policies[:1]) is None
    policies[2].options = {**policies[2].options, "floor": 0.5}
    assert stack_of(policies) is None
    for policy in policies:
        policy.__class__ = Other
        policy.options = {}
    assert stack_of(policies) is None


def test_policies_that_have_made_different_numbers_of_steps_are_not_stacked():
    _, policies = population("gradient_credit")
    policies[1].policy.context.weight.grad = torch.ones_like(policies[1].policy.context.weight)
    policies[1].optimizer.step()
    assert stack_of(policies) is None


def test_gradients_are_clipped_for_each_network():
    networks = [torch.nn.Linear(3, 2) for _ in range(2)]
    separate = [torch.nn.Linear(3, 2) for _ in range(2)]
    for network, copy in zip(networks, separate, strict=True):
        copy.load_state_dict(network.state_dict())
    stack = NetworkStack(networks, [torch.optim.Adam(network.parameters(), lr=0.1, eps=1.0) for network in networks])
    optimizers = [torch.optim.Adam(network.parameters(), lr=0.1, eps=1.0) for network in separate]
    inputs = torch.arange(12.0).view(2, 2, 3) * torch.tensor([0.001, 10.0])[:, None, None]
    for _ in range(3):
        stack.maximise(-stack(inputs).square().mean((1, 2)), lambda gradients: clipped_each(gradients, 1.0))
        for network, optimizer, of_network in zip(separate, optimizers, inputs, strict=True):
            optimizer.zero_grad()
            network(of_network).square().mean().backward()
            norm = torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
    assert norm > 1.0, "the second network's gradient is clipped"
    for network, expected in zip(networks, separate, strict=True):
        for name, parameter in expected.named_parameters():
            torch.testing.assert_close(network.get_parameter(name).data, parameter.data)


def test_an_interrupted_episode_leaves_policies_that_go_on_alone():
    env, policies = population("gradient_credit")

    def interrupt(state):
        if env.selection.distillation.update[0] == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_population_episode(env, policies, SEEDS, after_update=interrupt)
    parameters = first_parameters(policies)
    for number, (policy, parameter) in enumerate(zip(policies, parameters, strict=True)):
        for _ in range(number):
            parameter.grad = torch.ones_like(parameter)
            policy.optimizer.step()
    assert [int(policy.optimizer.state[parameter]["step"]) for policy, parameter in zip(policies, parameters, strict=True)] == [3, 4, 5]


class OneTooFew:
    """A stack that returns an action too few."""

    def __init__(self, policies):
        pass

    def act(self, observation):
        return np.zeros((23, 4), np.float32)

    def separate(self):
        pass


def test_a_stack_that_returns_too_few_actions_is_named(monkeypatch):
    env, policies = population("gradient_credit")
    monkeypatch.setattr(GradientCredit, "stack", OneTooFew)
    with pytest.raises(InputError, match=r"stack OneTooFew: act\(\) returned 23 actions; return one per slot, 24"):
        run_population_episode(env, policies, SEEDS)


def test_options_that_are_no_dict_do_not_matter_without_a_stack():
    class Plain:
        options = ("a",)

    assert stack_of([Plain(), Plain()]) is None


class NeverStacked:
    """A policy of a user's, whose stack takes no policies."""

    options = {}

    @staticmethod
    def stack(policies):
        raise NotStackable


def test_a_stack_of_the_user_s_may_refuse_policies():
    assert stack_of([NeverStacked(), NeverStacked()]) is None
