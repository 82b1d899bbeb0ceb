"""``lookahead`` against its closed form, and what it costs."""

import math

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy
from weighing import acted_weights, decided

from baselines.lookahead import Lookahead, weights
from kd_env.benchmark import records
from kd_env.benchmark.replay import replay
from kd_env.benchmark.run_trial import make_env, run_trial, run_trials
from kd_env.benchmark.trial import Trial
from kd_env.errors import InputError
from kd_env.policies import registry
from kd_env.testing import check_policy

LABELS = {"updates": 4, "student": "mlp(width=8)", "reward_examples": 40, "reward_labels": 40, "precision": "float64"}


def env_and_policy(policy="lookahead", **settings):
    env = make_env(Trial("digits", policy, 0, settings=LABELS | settings))
    return env, registry.find(policy).build(env, 0)


# The weights


def test_weights_of_two_teachers_by_hand():
    # centred (1, -1), of root mean square 1: softmax(.5, -.5) = 1 / (1 + exp(-1))
    credit = torch.tensor([[4.0, 2.0], [-3.0, -3.5]], dtype=torch.float64)
    share = 1 / (1 + math.exp(-1.0))
    assert weights(credit, 0.5).tolist() == pytest.approx(np.array([[share, 1 - share]] * 2))


def test_weights_of_three_teachers_by_hand():
    # centred (3, 0, -3), root mean square sqrt(6): (1.2247, 0, -1.2247); times 2
    odds = np.exp([math.sqrt(6), 0.0, -math.sqrt(6)])
    shares = weights(torch.tensor([[0.5, 0.2, -0.1]], dtype=torch.float64), 2.0)
    assert shares[0].tolist() == pytest.approx(odds / odds.sum())


@pytest.mark.parametrize("sharpness", [0.0, 3.0, 1e6, math.inf])
def test_teachers_worth_the_same_teach_alike(sharpness):
    credit = torch.tensor([[0.3, 0.3, 0.3], [0.0, 0.0, 0.0], [-2e-9, -2e-9, -2e-9]])
    assert torch.allclose(weights(credit, sharpness), torch.full((3, 3), 1 / 3))
    assert weights(torch.tensor([[0.7]]), sharpness).tolist() == [[1.0]], "one teacher"


def test_greedy_is_the_limit():
    credit = torch.tensor([[0.1, 0.4, 0.2], [5.0, -1.0, 5.0]])
    assert weights(credit, math.inf).tolist() == [[0.0, 1.0, 0.0], [0.5, 0.0, 0.5]]
    assert torch.allclose(weights(credit, 200.0), weights(credit, math.inf))


@pytest.mark.parametrize("sharpness", [0.5, 3.0, math.inf])
def test_weights_follow_a_permutation_and_stay_on_the_simplex(sharpness):
    generator = torch.Generator().manual_seed(0)
    credit = torch.randn(40, 5, generator=generator, dtype=torch.float64)
    credit[:, 4] = credit[:, 1]  # duplicated teachers
    shares, order = weights(credit, sharpness), torch.randperm(5, generator=generator)
    assert (shares >= 0).all()
    torch.testing.assert_close(shares.sum(1), torch.ones(40, dtype=torch.float64))
    torch.testing.assert_close(weights(credit[:, order], sharpness), shares[:, order])
    assert shares[:, 4].equal(shares[:, 1])
    assert (shares.argmax(1) == credit.argmax(1)).all()


# In a run


def by_finite_differences(run, epsilon=1e-6):
    """How fast the KL from each teacher to the student falls along the held-out gradient, ``[B, K]``, up to a factor."""
    (rows,) = run.reward_split.positions
    inputs, labels = run.reward_split.at(rows, run.student.device)
    parameters, batch, temperature = run.student.parameters, run.observe(), run.settings.temperature
    slopes = torch.autograd.grad(cross_entropy(run.student.forward(inputs).logits, labels), parameters)
    p = (batch.teacher_logits / temperature).log_softmax(2)

    def divergence(step):
        moved = [parameter.detach() + step * slope for parameter, slope in zip(parameters, slopes, strict=True)]
        q = (run.student.forward_at(moved, run.batch_inputs()).logits / temperature).log_softmax(1)
        return (p.exp() * (p - q[:, None])).sum(2)

    return (divergence(epsilon) - divergence(-epsilon)) / (2 * epsilon)


def test_it_weighs_by_how_fast_each_teacher_s_loss_changes_along_the_held_out_gradient():
    env, policy = env_and_policy("lookahead(sharpness=1.5)")
    env.reset(seed=0)
    worth = by_finite_differences(env.selection.distillation)
    worth = (worth - worth.mean(1, keepdim=True)) / worth.std(1, correction=0, keepdim=True)
    assert acted_weights(env, policy) == pytest.approx((1.5 * worth).softmax(1).detach().numpy(), abs=1e-5)


def test_it_raises_the_teacher_whose_step_lowers_the_held_out_loss():
    """The environment's own exact credit, one real step for each teacher of each instance, is the judge."""
    small = {"batch_size": 8, "optimizer": "sgd(lr=0.001)"}
    env, policy = env_and_policy(**small)
    judge = make_env(Trial("digits", "gradient_credit", 0, settings=LABELS | small | {"credit": "counterfactual"}))
    env.reset(seed=0)
    judge.reset(seed=0)
    credit = judge.step(judge.action_space.sample())[4]["credit"]
    assert (decided(policy).numpy().argsort(1) == credit.argsort(1)).all()


def test_its_passes_are_counted(tmp_path):
    for refresh, gradients in ((1, 4), (3, 2)):
        settings = LABELS | {"credit_refresh": refresh}
        plain, greedy = (run_trial(Trial("digits", name, 0, settings=settings), tmp_path) for name in ("uniform", "lookahead"))
        assert greedy["student_forward_examples"] == plain["student_forward_examples"] + 4 * 32
        assert greedy["reward_forward_examples"] == plain["reward_forward_examples"] + gradients * 40
        assert greedy["access"] == "reward labels"
        assert greedy["env"]["reward_every"] == 0


@pytest.mark.parametrize("settings", [{}, {"student": "mlp(width=8,dropout=0.3)"}, {"knowledge": "response,contrast", "kd_weight": 0.5}])
def test_looking_leaves_no_trace_in_the_student(settings, tmp_path):
    """Its actions alone give the same student again, so that nothing it looked at was touched."""
    trial = Trial("digits", "lookahead", 1, settings=LABELS | settings)
    records.append(tmp_path, run_trial(trial, tmp_path))
    assert replay(tmp_path, trial.id) == []


@pytest.mark.parametrize("scale", [0.0, 1e4])
def test_utterly_uniform_and_utterly_confident_teachers_are_finite(scale):
    env, policy = env_and_policy()
    env.reset(seed=0)
    env.selection.distillation.observe().teacher_logits.mul_(scale)
    shares = decided(policy)
    assert shares.isfinite().all()
    assert torch.allclose(shares.sum(1), torch.ones(32, dtype=shares.dtype))
    if scale == 0.0:
        assert torch.allclose(shares, torch.full((32, 4), 0.25, dtype=shares.dtype))


def test_it_keeps_to_the_protocol():
    check_policy(Lookahead)
    check_policy(Lookahead, greedy=True)


def test_it_teaches_text(tmp_path):
    task = "domains(train=160,reward=48,validation=32,test=16)"
    settings = {"updates": 4, "student": "tiny-bert(width=8,layers=1)", "batch_size": 8}
    record = run_trial(Trial(task, "lookahead", 0, "domains/experts", settings=settings), tmp_path)
    assert 0.0 < record["weight_entropy"] < 1.0
    assert record["selection_entropy"] is None, "it draws nothing"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("sharpness=-1", r"lookahead\(sharpness=-1\): expected a number of at least 0"),
        ("sharpness=true", "sharpness=True"),
        ("greedy=1", r"lookahead\(greedy=1\): expected true or false"),
    ],
)
def test_what_cannot_be_used_is_named(options, message):
    with pytest.raises(InputError, match=message):
        env_and_policy(f"lookahead({options})")


def test_students_of_a_population_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"population: policy 'lookahead' teaches one student at a time; run it without --population"):
        run_trials([Trial("digits", "lookahead", seed, settings=LABELS) for seed in (0, 1)], tmp_path, lambda _: None)
