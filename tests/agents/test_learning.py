"""Each learning agent learns what pays on a tiny problem with a known answer, and nothing from a constant reward.

What pays is the teacher that is wrong about an instance. So neither a start fitted on labels, nor a prior, nor the labels in the loss give
the answer: it comes from the reward alone. Agents that decide for a whole mini-batch are paid for teacher 1, AKD's for one knowledge type.
MTKD-RL's agents have rewards of their own.
"""

import dataclasses
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from tiny_problem import EXPERTS, tiny_task

from agents import mtkd_rl
from kd_env.benchmark.run_trial import teach
from kd_env.benchmark.trial import default_options
from kd_env.envs.rewards import Reward
from kd_env.policies import registry

BATCH = 16
TASK = tiny_task()


# what pays


def paid_teachers(example_ids):
    """The teacher of each instance that pays, the expert of the other group."""
    return 1 - TASK.train.groups[example_ids]


def pays_the_wrong_expert(run, meter, names, temperature):
    paid = torch.from_numpy(np.eye(2)[paid_teachers(run.observe().example_ids)])
    return dict.fromkeys(names, paid)


def pays_all_teachers_alike(run, meter, names, temperature):
    return {name: torch.full((len(run.observe().example_ids), 2), 0.3) for name in names}


class PaysTeacher1(Reward):
    def pay(self, step):
        return step.decision.weights["response"][:, 1]


class PaysResponse(Reward):
    """Pays for the responses and charges for the labels."""

    def pay(self, step):
        gates = [torch.as_tensor(step.decision.strengths[name]) * torch.ones(BATCH) for name in ("response", "label")]
        return gates[0] - gates[1]


class Constant(Reward):
    def pay(self, step):
        return torch.full((len(step.batch.labels),), 0.3)


# the agents


@dataclasses.dataclass(frozen=True)
class Case:
    """An agent, what it is paid with, and how much of the answer it has to find.

    ``wanted`` is the least mean weight (of AKD: gate) of what pays in the last quarter of the run. ``moved`` is the largest change of any
    mean weight with a constant reward, draws included; it is larger for AKD's agents and for Stable-Baselines3's, whose first values are
    random: they follow the errors of these values until they have learned them.
    """

    policy: str
    paid: dict[str, Any]
    constant: dict[str, Any]
    wanted: float = 0.8
    moved: float = 0.2
    updates: int = 60
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)


BY_CREDIT = {"credit": f"{__name__}:pays_the_wrong_expert"}
EQUAL_CREDIT = {"credit": f"{__name__}:pays_all_teachers_alike"}
EQUAL_REWARD = {"credit": "shared", "reward": f"{__name__}:Constant"}
BY_REWARD = {"credit": "shared", "reward": f"{__name__}:PaysTeacher1"}
OF_AKD = {
    "settings": {"kd_weight": 0.5, "exploration_bonus": 0.0, "updates_per_phase": 1, "knowledge": "response"},
    "updates": 20,
    "moved": 0.35,
}

CASES = [
    Case("actor_critic", BY_CREDIT, EQUAL_REWARD),
    Case("ppo(rollout=4,part_size=32)", BY_CREDIT, EQUAL_REWARD),
    Case("reinforce(learning_rate=0.05,initial_log_odds=0)", BY_CREDIT, EQUAL_REWARD, wanted=0.7),
    Case("gradient_credit(learning_rate=0.01)", BY_CREDIT, EQUAL_CREDIT),
    Case("held_credit(learning_rate=0.01,hold=0.1)", BY_CREDIT, EQUAL_CREDIT, settings={"reward_labels": 24}),
    Case("crossfit_credit(learning_rate=0.01,hold=0.1)", BY_CREDIT, EQUAL_CREDIT, settings={"reward_labels": 24}),
    Case(
        "piloted(margin=1e3,learner=crossfit_credit(learning_rate=0.01,hold=0.1))",
        BY_CREDIT,
        EQUAL_CREDIT,
        settings={"reward_labels": 24, "reward_ce": 0.0},  # else the labels alone can be chosen, and the teachers do not teach
    ),
    Case("exp3(gamma=0.3)", BY_REWARD, EQUAL_REWARD, wanted=0.7),
    Case("linucb", BY_REWARD, EQUAL_REWARD),
    Case("sliding_ucb", BY_REWARD, EQUAL_REWARD),
    Case("akd(training_episodes=8,batch_size=32)", {"reward": f"{__name__}:PaysResponse"}, EQUAL_REWARD, **OF_AKD),
    Case("akd_hard(training_episodes=8,batch_size=32)", {"reward": f"{__name__}:PaysResponse"}, EQUAL_REWARD, **OF_AKD),
    Case("sb3:PPO(n_steps=4,batch_size=32,n_epochs=4,learning_rate=0.005)", BY_CREDIT, EQUAL_CREDIT, moved=0.35),
    Case("sb3:A2C(n_steps=1,learning_rate=0.003)", BY_CREDIT, EQUAL_CREDIT, moved=0.35),
    Case(
        "sb3:DQN(learning_starts=32,buffer_size=2000,train_freq=1,exploration_fraction=0.3,learning_rate=0.003)",
        BY_CREDIT,
        EQUAL_CREDIT,
        moved=0.35,
    ),
    Case(
        "sb3:SAC(ent_coef=0.01,learning_starts=32,buffer_size=2000,batch_size=64,learning_rate=0.003)",
        BY_REWARD,
        EQUAL_CREDIT,
        moved=0.35,
        updates=40,
    ),
    Case("sb3:TD3(learning_starts=32,buffer_size=2000,batch_size=64,learning_rate=0.003)", BY_REWARD, EQUAL_CREDIT, moved=0.35, updates=40),
    Case(
        "sb3:DDPG(learning_starts=32,buffer_size=2000,batch_size=64,learning_rate=0.003)", BY_REWARD, EQUAL_CREDIT, moved=0.35, updates=40
    ),
]

LONG = ("akd", "akd_hard", "held_credit", "crossfit_credit", "piloted")
"""Agents that need several episodes, or fit their start: some seconds a case."""


def _parameter(case):
    name = case.policy.partition("(")[0]
    return pytest.param(case, id=name, marks=[pytest.mark.long] * (name in LONG))


CASES_BY_NAME = [_parameter(case) for case in CASES]


def built(case, options, seed=0):
    policy = registry.find(case.policy)
    keywords = {**default_options(policy.environment), **policy.env_options, "updates": case.updates, **case.settings, **options}
    per_instance = keywords["granularity"] == "instance"
    env = gym.make_vec(
        policy.environment,
        num_envs=BATCH if per_instance else 1,
        vectorization_mode="vector_entry_point",
        autoreset_mode="same_step",
        task=TASK,
        teachers=EXPERTS,
        **({} if per_instance else {"batch_size": BATCH}),
        **keywords,
    ).unwrapped
    return env, policy.build(env, seed)


def weights_of_a_run(case, options, seed=0):
    """The mean weights of each update: ``[updates, 2]`` of what pays and what does not, and ``[updates, 2, K]`` by group.

    Of AKD they are the gates of response and label.
    """
    env, agent = built(case, options, seed)
    paid, by_group = [], []

    def listen(step):
        if step.action.gates is not None:
            paid.append(step.action.gates[0])
            by_group.append(step.action.gates)
            return
        ids = step.batch.example_ids
        answer = paid_teachers(ids) if case.paid is BY_CREDIT else np.ones(len(ids), dtype=int)
        of_answer = step.weights[np.arange(len(ids)), answer].mean()
        paid.append([of_answer, step.weights.sum(1).mean() - of_answer])
        groups = TASK.train.groups[ids]
        by_group.append([step.weights[groups == group].mean(0) if (groups == group).any() else [np.nan] * 2 for group in (0, 1)])

    env.selection.listeners.append(listen)
    teach(env, [agent], [seed])
    return np.array(paid), np.array(by_group)


@pytest.mark.parametrize("case", CASES_BY_NAME)
def test_it_learns_what_pays(case):
    paid, _ = weights_of_a_run(case, case.paid)
    quarter = len(paid) // 4
    assert paid[-quarter:, 0].mean() > case.wanted


@pytest.mark.parametrize("case", CASES_BY_NAME)
def test_a_constant_reward_teaches_nothing(case):
    _, weights = weights_of_a_run(case, case.constant)
    quarter = len(weights) // 4
    moved = np.nanmean(weights[-quarter:], 0) - np.nanmean(weights[:quarter], 0)
    assert np.abs(moved).max() < case.moved


# MTKD-RL, whose rewards are its own


def head_after_a_run(policy, **settings):
    """The mean probability that the head of the responses gives to the right teacher, for each update."""
    env, agent = built(Case(policy, {}, {}, updates=80, settings={"knowledge": "response", "kd_weight": 0.5, **settings}), {})
    shares = []
    act = agent.act

    def acting(observation):
        decision = act(observation)
        with torch.no_grad():
            head = agent.agent(agent._taken.state.columns)["response"].exp().numpy()
        shares.append(head[np.arange(BATCH), TASK.train.groups[env.selection.distillation.observe().example_ids]].mean())
        return decision

    agent.act = acting
    teach(env, [agent], [0])
    return np.array(shares)


def test_mtkd_rl_learns_whose_loss_is_lowest():
    """The student learns the labels, too, so the loss of the right expert becomes the lowest."""
    shares = head_after_a_run("mtkd_rl(learning_rate=0.01)")
    assert shares[-20:].mean() > 0.8


def test_mtkd_rl_learns_nothing_from_a_constant_reward(monkeypatch):
    monkeypatch.setattr(mtkd_rl, "teacher_reward", lambda taken: torch.zeros(BATCH, 2))
    shares = head_after_a_run("mtkd_rl(learning_rate=0.01)")
    assert abs(shares[-20:].mean() - shares[:20].mean()) < 0.1
