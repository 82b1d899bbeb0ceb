"""AKD's agent: it finds the known best action of a small problem, and keeps to its schedule."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from agents.knowledge_actor_critic import HardKnowledgeActorCritic, KnowledgeActorCritic
from kd_env.benchmark.records import append
from kd_env.benchmark.replay import replay
from kd_env.benchmark.run_trial import run_trial, teach
from kd_env.benchmark.trial import Trial
from kd_env.testing import check_policy

pytestmark = pytest.mark.long

GOAL = np.array([0.9, 0.1, 0.6])


class Target:
    """One student, three knowledge types: what pays is to be near GOAL, whatever is seen; an episode has 20 phases.

    Environment and policy context in one.
    """

    num_envs = 1
    columns = {"student": 2, "teachers": 3}
    action = SimpleNamespace(size=3)

    def __init__(self, hard):
        self.hard, self.resets, self.rewards = hard, [], []
        self.settings = SimpleNamespace(interface=SimpleNamespace(action="hard" if hard else "soft"))
        self.rng = np.random.default_rng(0)

    def seen(self):
        return {name: self.rng.uniform(-1, 1, (1, size)).astype(np.float32) for name, size in self.columns.items()}

    def reset(self, seed):
        self.resets.append(seed)
        self.phase = 0
        return self.seen(), {}

    def step(self, action):
        strengths = action[0] if self.hard else (action[0] + 1) / 2
        goal = (GOAL > 0.5) if self.hard else GOAL
        reward = -np.square(strengths - goal).sum()
        self.rewards.append(reward)
        self.phase += 1
        over = np.array([self.phase == 20])
        return self.seen(), np.array([reward]), over, ~over & False, {}


@pytest.mark.parametrize(("hard", "seed"), [(False, 0), (True, 1)])
def test_it_finds_the_best_action(hard, seed):
    env = Target(hard)
    kind = HardKnowledgeActorCritic if hard else KnowledgeActorCritic
    agent = kind(env, seed, training_episodes=60, discount=0.0, hidden=32)
    teach(env, [agent], [seed])
    start, end = np.mean(env.rewards[:100]), np.mean(env.rewards[-20:])
    assert end > -0.05, (start, end)
    assert start < -0.3, "there is something to learn"
    action = agent.act(env.seen())[0]
    if hard:
        assert action.tolist() == [1, 0, 1]
    else:
        np.testing.assert_allclose((action + 1) / 2, GOAL, atol=0.15)


def test_the_student_that_counts_is_the_last_and_starts_from_the_seed():
    env = Target(hard=False)
    teach(env, [KnowledgeActorCritic(env, seed=7, training_episodes=3)], [7])
    assert len(env.resets) == 4
    assert env.resets[-1] == 7
    assert len(set(env.resets)) == 4
    assert len(env.rewards) == 80


def test_the_discount_looks_ahead():
    env = Target(hard=False)
    agent = KnowledgeActorCritic(env, discount=0.5, training_episodes=60, hidden=32)
    teach(env, [agent], [0])
    columns = [np.stack(column) for column in zip(*agent.memory[-400:], strict=True)]
    state = agent.nets.state(*(torch.from_numpy(columns[place]) for place in (0, 1)))
    value = agent.nets.value(state, torch.from_numpy(columns[2]).float()).detach().numpy()
    last = columns[6].astype(bool)
    spread = np.std([phase[3] for phase in agent.memory])
    now = columns[3] / spread
    assert abs((value - now)[last].mean()) < abs((value - now)[~last].mean()), "at the end there is nothing to come"


@pytest.mark.parametrize("policy", [KnowledgeActorCritic, HardKnowledgeActorCritic])
def test_it_keeps_to_the_protocol(policy):
    check_policy(policy, training_episodes=1)


@pytest.mark.parametrize("policy", ["akd", "akd_hard"])
def test_a_record_counts_every_student_and_its_last_one_replays(policy, tmp_path):
    trial = Trial("digits", f"{policy}(training_episodes=2)", 3, settings={"updates": 20, "validation_every": 20})
    record = run_trial(trial, tmp_path)
    append(tmp_path, record)
    assert replay(tmp_path, trial.id) == []
    assert record["student_forward_examples"] == 3 * (20 + 1) * 32
    assert [point["update"] for point in record["curve"]] == [20]


def test_the_critic_of_hard_actions_is_asked_about_hard_actions():
    agent = object.__new__(HardKnowledgeActorCritic)
    agent.hard = True
    strengths = torch.tensor([[0.2, 0.7]], requires_grad=True)
    taken = agent._as_executed(strengths)
    assert taken.tolist() == [[0.0, 1.0]]
    taken.sum().backward()
    assert strengths.grad.tolist() == [[1.0, 1.0]], "the gradient passes straight through the threshold"
    agent.hard = False
    assert agent._as_executed(strengths) is strengths
