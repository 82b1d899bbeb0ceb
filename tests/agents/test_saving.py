"""A loaded agent continues bit for bit where the saved one stopped."""

import json

import numpy as np
import pytest
import torch
from safetensors import safe_open

from agents.exp3 import EXP3
from agents.linucb import LinUCB
from kd_env.benchmark.run_trial import make_env
from kd_env.benchmark.trial import Trial
from kd_env.errors import InputError
from kd_env.policies import Transition, registry
from kd_env.policies.context import PolicyContext

BEFORE, AFTER = 7, 5
"""Steps before the agent is saved, and after it."""

CASES = {
    "exp3": {},
    "linucb": {},
    "sliding_ucb(window=5,memory=4)": {},
    "reinforce": {},
    "reinforce(window=3)": {},
    "reinforce(baseline=False,student_warmup=9)": {},
    "reinforce(student_warmup=2,selector_warmup=3)": {"reward": "mixed"},
    "actor_critic(rollout=2)": {},
    "ppo(rollout=4)": {},
    "gradient_credit": {},
    "gradient_credit(router_start=True)": {"credit": "head"},
    "scorer_credit": {"credit": "head"},
    "scorer_credit(label_start=True)": {"reward_labels": 32, "credit": "head"},
    "held_credit": {"reward_labels": 32, "credit": "head"},
    "crossfit_credit": {"reward_labels": 32, "credit": "head(folds=3)"},
    "piloted": {"reward_labels": 32, "credit": "head(folds=3)"},
    "akd": {"updates_per_phase": 2},
    "akd_hard(batch_size=8)": {"updates_per_phase": 2},
    "mtkd_rl": {"kd_weight": 0.5},
    "mtkd_rl_released": {"kd_weight": 0.5},
}
SLOW = ("held_credit", "crossfit_credit", "piloted")  # their start is fitted for seconds
POLICIES = [pytest.param(name, marks=[pytest.mark.long] * (name in SLOW)) for name in CASES]


def started(policy):
    env = make_env(Trial("digits", policy, 3, settings={"updates": 60, "student": "mlp(width=8)", "batch_size": 8, **CASES[policy]}))
    agent = registry.find(policy).build(env, 3)
    if callable(getattr(agent, "begin_episode", None)):
        agent.begin_episode(learning=True)
    return env, agent, env.reset(seed=3)[0]


def play(env, agent, observation, steps):
    """Let the agent learn for some steps; return what it observes then, and what it did."""
    actions = []
    for _ in range(steps):
        action = agent.act(observation)
        next_observation, reward, terminated, _, info = env.step(action)
        agent.update(Transition(observation, action, reward, next_observation, terminated, info))
        observation = next_observation
        actions.append(action if isinstance(action, np.ndarray) else {name: w.numpy() for name, w in action.weights.items()})
    return observation, actions


def equal(first, second):
    """Whether two nestings of tensors, arrays and numbers are the same, types included."""
    if type(first) is not type(second) and not (isinstance(first, dict) and isinstance(second, dict)):
        return False
    if isinstance(first, dict):
        return list(first) == list(second) and all(equal(first[key], second[key]) for key in first)
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(equal, first, second))
    if isinstance(first, torch.Tensor):
        return first.dtype == second.dtype and torch.equal(first, second)
    if isinstance(first, np.ndarray):
        return first.dtype == second.dtype and np.array_equal(first, second)
    return first == second


def loaded(agent, policy, env, path):
    agent.save(str(path))
    kind = registry.find(policy)
    return type(agent).load(str(path), PolicyContext(env, kind.name, kind.access))


@pytest.mark.parametrize("policy", POLICIES)
def test_a_loaded_agent_continues_equally(policy, tmp_path):
    env, agent, observation = started(policy)
    observation, _ = play(env, agent, observation, BEFORE)
    twin_env = env.fork()
    twin = loaded(agent, policy, twin_env, tmp_path / "agent")
    assert twin.options == agent.options
    assert equal(twin.state(), agent.state())
    _, actions = play(env, agent, observation, AFTER)
    _, twin_actions = play(twin_env, twin, observation, AFTER)
    assert equal(actions, twin_actions)
    assert equal(twin.state(), agent.state())
    for parameter, of_twin in zip(env.distillation.student.parameters, twin_env.distillation.student.parameters, strict=True):
        assert torch.equal(parameter, of_twin), "the students are the same, too"


@pytest.mark.parametrize("policy", POLICIES)
def test_the_state_is_all_that_changes(policy, tmp_path):
    """Whatever an attribute holds that is not in ``state()``, equal states act equally; and everything in it has changed or is constant."""
    env, agent, observation = started(policy)
    before = loaded(agent, policy, env, tmp_path / "before")
    play(env, agent, observation, BEFORE)
    assert not equal(before.state(), agent.state()), "it had something to learn"
    before.load_state(loaded(agent, policy, env, tmp_path / "after").state())
    assert equal(before.state(), agent.state())


def test_the_file_is_safetensors_and_json(tmp_path):
    env, agent, observation = started("akd")
    play(env, agent, observation, BEFORE)
    agent.save(str(tmp_path / "agent"))
    with safe_open(str(tmp_path / "agent"), "pt") as file:
        content = json.loads(file.metadata()["agent"])
        assert content["agent"] == "KnowledgeActorCritic"
        assert content["options"]["hidden"] == 64
        assert len(list(file.keys())) > 20


def test_a_flipped_bit_is_named(tmp_path):
    env, agent, observation = started("reinforce")
    play(env, agent, observation, BEFORE)
    agent.save(str(tmp_path / "agent"))
    content = bytearray((tmp_path / "agent").read_bytes())
    for place in (-3, content.index(b"learning_rate") + 20):
        damaged = bytearray(content)
        damaged[place] ^= 1
        (tmp_path / "agent").write_bytes(damaged)
        with pytest.raises(InputError, match=r"agent: the agent has changed since it was saved \(its checksum differs\)"):
            type(agent).load(str(tmp_path / "agent"), PolicyContext(env, "reinforce", "reward scalar"))


def test_equal_agents_have_equal_files(tmp_path):
    """A trial that uses a saved policy is identified by the hash of its file."""
    env, agent, observation = started("reinforce")
    play(env, agent, observation, BEFORE)
    for name in ("one", "two"):
        agent.save(str(tmp_path / name))
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_a_file_of_another_agent_and_a_file_that_is_none_are_refused(tmp_path):
    env, agent, _ = started("exp3")
    context = PolicyContext(env, "linucb", "reward scalar")
    agent.save(str(tmp_path / "agent"))
    with pytest.raises(InputError, match=r"agent: holds a EXP3, not a LinUCB; load it with EXP3\.load"):
        LinUCB.load(str(tmp_path / "agent"), context)
    (tmp_path / "text").write_text("not an agent")
    for name in ("text", "missing"):
        with pytest.raises(InputError, match=rf"{name}: not a saved agent"):
            EXP3.load(str(tmp_path / name), context)
