"""MTKD-RL in runs: its rewards and costs, saving and replay, and what it cannot work with."""

import pytest
import torch
from mtkd_rl_agents import BOTH, current_state, make

from agents.mtkd_rl import MTKDRL, teacher_reward
from agents.mtkd_rl_released import MTKDRLReleased
from kd_env.benchmark import records
from kd_env.benchmark.replay import replay
from kd_env.benchmark.run_trial import run_trial, run_trials
from kd_env.benchmark.trial import Trial
from kd_env.errors import InputError
from kd_env.knowledge.response import per_teacher
from kd_env.policies import run_episode
from kd_env.policies.context import PolicyContext
from kd_env.testing import check_policy

TEXT = "domains(train=160,reward=48,validation=32,test=16)"


def test_each_teacher_is_paid_for_the_student_after_the_update():
    env, agent = make("mtkd_rl", knowledge="response,hint(strength=3)", kd_weight=0.5)
    run = env.selection.distillation
    batch, inputs = run.observe(), run.batch_inputs()
    env.step(agent.act({}))
    count = int(run.state.forward_examples[0])
    reward = teacher_reward(agent._taken)
    assert int(run.state.forward_examples[0]) == count + 32
    after = run.student.forward(inputs)
    kl = per_teacher(after.logits, batch.teacher_logits, run.settings.temperature)
    far = [(hint - features).square().mean(1) for hint, features in zip(after.projections["linear"], batch.teacher_features, strict=True)]
    paid = -(0.5 * kl + 0.5 * 3 * torch.stack(far, 1)).detach()
    expected = (paid - paid.mean(1, keepdim=True)) / paid.std(1, correction=0, keepdim=True)
    assert torch.allclose(reward, expected, atol=1e-5)
    assert (reward.argmax(1) == paid.argmax(1)).all()


@pytest.mark.parametrize(("policy", "passes"), [("mtkd_rl", 21), ("mtkd_rl_released", 11)])
def test_passes_are_counted(policy, passes, tmp_path):
    """10 updates and the last observation; the paper's looks again after each update."""
    record = run_trial(Trial("digits", policy, 0, settings={"updates": 10}), tmp_path)
    assert record["student_forward_examples"] == 32 * passes
    assert record["access"] == "train labels"


@pytest.mark.parametrize("policy", BOTH)
def test_it_learns_in_a_run_and_is_saved(policy, tmp_path):
    env, agent = make(policy)
    before = [parameter.detach().clone() for parameter in agent.agent.parameters()]
    run_episode(env, agent, 0)
    assert env.finished is not None
    assert int(agent.agent.standardise.seen) == 20
    assert not any(torch.equal(a, b) for a, b in zip(before, agent.agent.parameters(), strict=True))
    assert all(parameter.isfinite().all() for parameter in agent.agent.parameters())
    agent.save(str(tmp_path / "agent"))
    again = type(agent).load(str(tmp_path / "agent"), PolicyContext(env, policy, agent.access))
    state = current_state(agent)
    for name in ("response", "hint"):
        assert torch.equal(again.agent(state.columns)[name], agent.agent(state.columns)[name])
    assert again.options == agent.options


@pytest.mark.parametrize("kind", [MTKDRL, MTKDRLReleased])
def test_it_keeps_to_the_protocol(kind):
    check_policy(kind)


@pytest.mark.parametrize("policy", BOTH)
@pytest.mark.parametrize(
    ("task", "settings"),
    [("digits", {"kd_weight": 0.5}), (TEXT, {"student": "tiny-bert(width=8,layers=1)"})],
    ids=["image", "text"],
)
def test_its_record_is_replayed(policy, task, settings, tmp_path):
    trial = Trial(task, policy, 1, settings={"updates": 10, **settings})
    records.append(tmp_path, run_trial(trial, tmp_path))
    assert replay(tmp_path, trial.id) == []


@pytest.mark.parametrize("policy", BOTH)
def test_what_it_cannot_work_with_is_refused(policy, tmp_path):
    with pytest.raises(InputError, match=rf"policy '{policy}' needs at least 2 teachers, pool .* has 1"):
        make(policy, teachers="digits/experts/upright")
    with pytest.raises(InputError, match=rf"policy {policy} weighs responses"):
        make(policy, knowledge="hint")
    with pytest.raises(InputError, match=f"policy '{policy}' teaches one student at a time; run it without --population"):
        run_trials([Trial("digits", policy, seed, settings={"updates": 4}) for seed in (0, 1)], tmp_path, lambda _: None)
