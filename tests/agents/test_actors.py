"""``actor_critic`` and ``ppo``: networks that any pool fits, advantages and losses worked out by hand."""

import math

import numpy as np
import pytest
import torch

from agents.actor_critic import ActorCriticAgent
from agents.ppo import PPO
from agents.rollout import Rollout, gae
from agents.teacher_scorer import OF_STUDENT, ActorCritic, num_columns, teacher_columns
from kd_env.benchmark.run_trial import make_env
from kd_env.benchmark.trial import Trial
from kd_env.envs.observations import Summary
from kd_env.errors import InputError
from kd_env.policies import registry, run_episode
from kd_env.testing import check_policy

SMALL = {"student": "mlp(width=8)", "batch_size": 8}


def make(policy, updates=12, teachers=None, **settings):
    env = make_env(Trial("digits", policy, 0, teachers, settings={"updates": updates, **SMALL, **settings}))
    agent = registry.find(policy).build(env, 0)
    return env, agent, env.reset(seed=0)[0]


def some_observation(num_teachers, rows=5):
    rng = np.random.default_rng(0)
    sizes = {"instance": 3, "teachers": 6 * num_teachers, "student": 3, "progress": 1}
    return {name: rng.uniform(0, 1, (rows, size)).astype(np.float32) for name, size in sizes.items()}


def some_net(hidden=8):
    """Networks whose last layers are not zero."""
    torch.manual_seed(0)
    net = ActorCritic(25, hidden)
    with torch.no_grad():
        for network in (net.actor, net.critic):
            network[-1].weight.normal_()
    return net


# the networks


def test_the_columns_by_hand():
    observation = {
        "instance": np.array([[0.5, 0.75, math.exp(-1.0)]], dtype=np.float32),
        "teachers": np.array([[0.5, 1.0, 0.3, 2.0, 1.0, 0.0, 0.75, math.exp(-2.0), 0.1, 4.0, 0.0, 1.0]], dtype=np.float32),
        "student": np.array([[0.25, 1.0, 0.2]], dtype=np.float32),
        "progress": np.array([[0.6]], dtype=np.float32),
    }
    own = np.array([[0.0, 0.0, 0.3, 2.0, 1.0, 0.0], [math.log(3.0), -2.0, 0.1, 4.0, 0.0, 1.0]])
    shared = [0.5, math.log(3.0), -1.0, -math.log(3.0), 0.0, 0.2, 0.6]
    columns = teacher_columns(observation, 2)[0].numpy()
    for k in (0, 1):  # of one other teacher, the mean and the largest are its own
        assert columns[k] == pytest.approx([*own[k], *own[1 - k], *own[1 - k], *shared], abs=1e-5)


def test_the_largest_of_the_others_leaves_out_the_teacher_itself():
    observation = some_observation(4)
    columns = teacher_columns(observation, 4)
    own, mean, largest = columns[..., :6], columns[..., 6:12], columns[..., 12:18]
    for k in range(4):
        others = own[:, [j for j in range(4) if j != k]]
        assert torch.allclose(mean[:, k], others.mean(1), atol=1e-5)
        assert torch.equal(largest[:, k], others.amax(1))


def test_without_the_student_only_the_teachers_outputs_count():
    observation = some_observation(3)
    other = {name: block.copy() for name, block in observation.items()}
    other["student"] += 1.0
    other["progress"] += 1.0
    other["teachers"].reshape(5, 3, 6)[:, :, 3:5] += 1.0  # KL to the student, agreement with it
    assert torch.equal(teacher_columns(observation, 3, read_student=False), teacher_columns(other, 3, read_student=False))
    assert not torch.equal(teacher_columns(observation, 3), teacher_columns(other, 3))
    assert Summary.columns["teachers"][OF_STUDENT] == ("KL(teacher, student)", "agrees with the student")


def test_the_progress_reaches_the_networks_as_it_is():
    net, logits = some_net(), []
    for step in range(300):  # the deviation of the progress within a mini-batch is 0, however long the run
        columns = teacher_columns({**some_observation(2), "progress": np.full((5, 1), step / 300, dtype=np.float32)}, 2)
        net.standardise.adapt(columns)
    for progress in (0.8, 0.9, 1.0):
        columns = teacher_columns({**some_observation(2), "progress": np.full((5, 1), progress, dtype=np.float32)}, 2)
        logits.append(net(columns)[0])
    assert (logits[1] - logits[0]).abs().max() > 1e-3
    assert (logits[2] - logits[1]).abs().max() > 1e-3


def test_one_teacher_has_no_others():
    columns = teacher_columns(some_observation(1), 1)
    assert (columns[..., 6:18] == 0.0).all()


def test_exchanged_teachers_exchange_their_logits_and_leave_the_value():
    net, observation, order = some_net(), some_observation(4), [2, 0, 3, 1]
    exchanged = {**observation, "teachers": observation["teachers"].reshape(5, 4, 6)[:, order].reshape(5, 24)}
    with torch.no_grad():
        logits, value = net(teacher_columns(observation, 4))
        again, same_value = net(teacher_columns(exchanged, 4))
    assert torch.allclose(again, logits[:, order], atol=1e-6)
    assert torch.allclose(same_value, value, atol=1e-6)
    assert logits.std(1).min() > 0.01


@pytest.mark.parametrize("num_teachers", [1, 2, 7])
def test_one_network_serves_any_number_of_teachers(num_teachers):
    with torch.no_grad():
        logits, value = some_net()(teacher_columns(some_observation(num_teachers), num_teachers))
    assert (logits.shape, value.shape) == ((5, num_teachers), (5,))
    assert num_columns({"instance": 3, "teachers": 6 * num_teachers, "student": 3, "progress": 1}, num_teachers) == 25


def test_duplicated_teachers_have_equal_logits():
    observation = some_observation(2)
    twice = {**observation, "teachers": np.concatenate([observation["teachers"], observation["teachers"]], 1)}
    with torch.no_grad():
        logits = some_net()(teacher_columns(twice, 4))[0]
    assert torch.allclose(logits[:, :2], logits[:, 2:])


# advantages


def test_advantages_by_hand():
    """Two slots; gamma .5, lambda .5; the second slot's episode ends after the first step."""
    rewards = torch.tensor([[1.0, 1.0], [2.0, 2.0]])
    values = torch.tensor([[0.5, 0.5], [1.0, 1.0]])
    ends = torch.tensor([[0.0, 1.0], [0.0, 0.0]])
    # step 1: 2 + .5 * 4 - 1 = 3; step 0: 1 + .5 * 1 - .5 = 1, plus .25 * 3; where it ended 1 - .5
    advantages = gae(rewards, values, ends, torch.tensor([4.0, 4.0]), 0.5, 0.5)
    assert advantages.tolist() == [[1.75, 0.5], [3.0, 3.0]]


def test_without_a_discount_the_advantage_is_the_reward_less_the_value():
    rewards, values = torch.randn(3, 4), torch.randn(3, 4)
    assert torch.equal(gae(rewards, values, torch.zeros(3, 4), torch.randn(4), 0.0, 0.95), rewards - values)


# losses


def part_of(agent, advantage, ratio=1.0):
    """Two instances with three teachers, for a policy that is undecided: its log-probabilities are -ln 3."""
    drawn = torch.full((2,), -math.log(3.0)) - math.log(ratio)
    return Rollout(torch.zeros(2, 3, 25), torch.tensor([0, 2]), drawn, torch.tensor(advantage), torch.tensor([1.0, 3.0]))


def test_the_loss_of_actor_critic_by_hand():
    _, agent, _ = make("actor_critic(entropy_bonus=0.1,value_weight=0.5)")
    # A log pi: (1 - 2)/2 * -ln 3 = .5 ln 3; entropy ln 3; value loss (1 + 9)/2
    expected = 0.5 * 5.0 - 0.5 * math.log(3.0) - 0.1 * math.log(3.0)
    assert float(agent.loss(part_of(agent, [1.0, -2.0])).detach()) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(("ratio", "surrogate"), [(1.0, 0.0), (1.5, (1.2 - 1.5) / 2), (0.5, (0.5 - 0.8) / 2)])
def test_the_loss_of_ppo_by_hand(ratio, surrogate):
    """Standardised advantages are 1 and -1: a good action gains up to 1.2 times, a bad one loses in full; and the other way below .8."""
    _, agent, _ = make("ppo(entropy_bonus=0.1,value_weight=0.5)")
    expected = 0.5 * 5.0 - surrogate - 0.1 * math.log(3.0)
    assert float(agent.loss(part_of(agent, [5.0, 1.0], ratio)).detach()) == pytest.approx(expected, abs=1e-5)


def test_ppo_s_ratio_is_one_before_its_first_gradient_step():
    env, agent, _ = make("ppo(rollout=3,epochs=2,part_size=7)")
    seen, loss = [], agent.loss

    def watched(part):
        with torch.no_grad():
            log_policy = agent.net(part.columns)[0].log_softmax(1).gather(1, part.teachers[:, None])[:, 0]
        seen.append(float((log_policy - part.log_probability).abs().max()))
        return loss(part)

    agent.loss = watched
    run_episode(env, agent, 0)
    steps = 2 * math.ceil(3 * 8 / 7)
    assert len(seen) == 4 * steps
    assert max(seen[::steps]) < 1e-5
    assert min(seen[1::steps]) > 1e-5


@pytest.mark.parametrize("policy", ["actor_critic(rollout=5)", "ppo(rollout=5)"])
def test_the_last_rollout_ends_with_the_episode(policy):
    env, agent, _ = make(policy)
    sizes, learn = [], agent._learn
    agent._learn = lambda whole: (sizes.append(len(whole.teachers)), learn(whole))
    run_episode(env, agent, 0)
    assert sizes == [40, 40, 16]
    assert agent._steps == []


@pytest.mark.parametrize("policy", ["actor_critic", "ppo"])
def test_it_starts_undecided_and_draws_as_its_probabilities_say(policy):
    _, agent, observation = make(policy)
    assert agent.selection_entropy(observation).tolist() == pytest.approx([1.0] * 8)
    drawn = np.bincount(np.concatenate([agent.act(observation) for _ in range(500)]), minlength=4) / 4000
    assert drawn == pytest.approx([0.25] * 4, abs=0.03)


@pytest.mark.parametrize("policy", ["actor_critic", "ppo"])
def test_frozen_it_changes_nothing(policy):
    env, agent, _ = make(policy)
    before = {name: value.clone() for name, value in agent.net.state_dict().items()}
    run_episode(env, agent, 0, learning=False)
    assert all(torch.equal(value, before[name]) for name, value in agent.net.state_dict().items())
    run_episode(env, agent, 0)
    assert not all(torch.equal(value, before[name]) for name, value in agent.net.state_dict().items())


@pytest.mark.parametrize("policy", ["actor_critic", "ppo(rollout=3)"])
@pytest.mark.parametrize("settings", [{"observe_labels": True}, {"credit": "shared"}, {"teachers": "digits/experts/upright"}])
def test_it_works_with_labels_with_a_shared_reward_and_with_one_teacher(policy, settings):
    env, agent, _ = make(policy, **settings)
    run_episode(env, agent, 0)
    assert all(parameter.isfinite().all() for parameter in agent.net.parameters())
    assert env.finished.update.tolist() == [12]


@pytest.mark.parametrize("kind", [ActorCriticAgent, PPO])
def test_it_keeps_to_the_protocol(kind):
    check_policy(kind)


@pytest.mark.parametrize(
    "option", ["learning_rate=0", "rollout=0", "hidden=1.5", "discount=2", "gae_lambda=-1", "entropy_bonus=-1", "max_gradient=0"]
)
@pytest.mark.parametrize("policy", ["actor_critic", "ppo"])
def test_an_option_out_of_range_is_refused(policy, option):
    with pytest.raises(InputError, match=option.partition("=")[0]):
        make(f"{policy}({option})")
