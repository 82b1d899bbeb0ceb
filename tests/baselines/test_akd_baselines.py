"""AKD's baselines: what each teaches with, that the draws are what they say, and that records replay."""

import numpy as np
import pytest
import torch

from kd_env.benchmark.records import append
from kd_env.benchmark.replay import replay
from kd_env.benchmark.run_trial import make_env, run_trial
from kd_env.benchmark.trial import Trial
from kd_env.policies import registry
from kd_env.testing import check_policy

NAMES = ("all_knowledge", "distilbert", "pkd", "random_hard", "random_soft")
SMALL = {"updates": 24, "batch_size": 8, "validation_every": 24}


def env_and_policy(name, seed=0, **settings):
    env = make_env(Trial("digits", name, seed, settings={**SMALL, **settings}))
    return env, registry.find(name).build(env, seed)


def taught(name, **settings):
    """The decisions of one student's mini-batches, as strengths by type."""
    env, policy = env_and_policy(name, **settings)
    observation, _ = env.reset(seed=0)
    strengths, selection, apply = [], env.selection, env.selection.distillation.apply

    def noting(decision, active):
        strengths.append({kind: float(torch.as_tensor(value).max()) for kind, value in decision.strengths.items()})
        assert all((weights == 1.0 / selection.num_teachers).all() for weights in decision.weights.values()), "all teach alike"
        return apply(decision, active)

    selection.distillation.apply = noting
    over = np.zeros(1, dtype=bool)
    while not over.any():
        observation, _, over, _, _ = env.step(policy.act(observation))
    return strengths


@pytest.mark.parametrize("name", NAMES)
def test_it_keeps_to_the_protocol(name):
    policy = registry.find(name)
    assert (policy.access, policy.make.paper != "") == ("nothing", True)
    check_policy(policy.make)


@pytest.mark.parametrize(
    ("name", "strengths"),
    [
        ("pkd", {"response": 0.75, "layer": 0.75, "label": 0.25}),
        ("distilbert", {"response": 0.75, "hint": 0.075, "label": 0.25}),  # 5 tau^2 KL to 1 - cos, and 1 - cos is half the hint
        ("all_knowledge", {"response": 1.0, "layer": 1.0, "relation": 1.0, "label": 1.0}),
    ],
)
def test_strengths_by_hand(name, strengths):
    decisions = taught(name, kd_weight=0.75)
    assert len(decisions) == 24
    assert decisions == [pytest.approx(strengths)] * 24
    without = taught(name, kd_weight=1.0)[0]
    assert set(without) == set(strengths) - {"label"}, "where labels are no part of the setting"


@pytest.mark.parametrize("name", ["pkd", "distilbert"])
def test_directions_are_compared(name):
    env, _ = env_and_policy(name)
    (term,) = [term for kind, term in env.selection.distillation.loss.terms.items() if kind != "response"]
    assert term.knowledge.normalized


@pytest.mark.parametrize("name", ["random_hard", "random_soft"])
def test_a_phase_has_one_draw_and_ten_mini_batches(name):
    decisions = taught(name, kd_weight=0.75)
    assert len(decisions) == 24
    phases = [decisions[:10], decisions[10:20], decisions[20:]]
    for phase in phases:
        assert phase == [phase[0]] * len(phase)
    assert set(decisions[0]) == {"response", "layer", "relation", "label"}
    assert phases[0][0] != phases[1][0] or phases[1][0] != phases[2][0]
    assert decisions == taught(name, kd_weight=0.75), "by the seed alone"


@pytest.mark.parametrize("name", ["random_hard", "random_soft"])
def test_draws_are_even_and_independent(name):
    env, policy = env_and_policy(name, kd_weight=0.75)
    observation, _ = env.reset(seed=0)
    drawn = np.concatenate([policy.act(observation) for _ in range(4000)]).astype(np.float64)
    drawn = drawn if name == "random_hard" else (drawn + 1) / 2
    assert drawn.shape == (4000, 4)
    deviation = {"random_hard": 0.5, "random_soft": 12**-0.5}[name]  # of a coin, of the uniform distribution
    np.testing.assert_allclose(drawn.mean(0), 0.5, atol=0.03)
    np.testing.assert_allclose(drawn.std(0), deviation, atol=0.02)
    np.testing.assert_allclose(np.corrcoef(drawn.T), np.eye(4), atol=0.06)
    other = registry.find(name).build(env, 1)
    assert not np.array_equal([other.act(observation) for _ in range(10)], drawn[:10])


@pytest.mark.parametrize("name", ["pkd", "all_knowledge", "random_hard", "random_soft"])
def test_a_record_replays(name, tmp_path):
    trial = Trial("digits", name, 3, settings=SMALL)
    record = run_trial(trial, tmp_path)
    append(tmp_path, record)
    assert replay(tmp_path, trial.id) == []
    assert record["reward_forward_examples"] <= 2 * 256, "rules do not look at the reward"


@pytest.mark.parametrize("name", NAMES)
def test_it_teaches_text(name, tmp_path):
    settings = {"updates": 4, "batch_size": 4, "student": "tiny-bert(width=8,layers=2,heads=2)", "validation_every": 4}
    record = run_trial(Trial("domains(train=160,reward=48,validation=32,test=16)", name, 0, "domains/experts", settings=settings), tmp_path)
    assert not record["diverged"]
    assert 0.0 < record["test"] <= 1.0
