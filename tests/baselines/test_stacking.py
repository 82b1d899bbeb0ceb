"""Stacking: the columns and shares by hand, and that its mixture predicts labels that it did not see better than formulas do."""

import math

import numpy as np
import pytest
import torch

from baselines.mixture import TaughtMixtureLikelihood, fit_shares, taught
from baselines.scorer import Scorer, scorer_columns
from baselines.stacking import Instances, Stack, Stacking, low_entropy, most_confident, uniform
from baselines.taught_stacking import TaughtStacking
from kd_env import tasks
from kd_env.benchmark.run_trial import make_env
from kd_env.benchmark.trial import Trial
from kd_env.errors import InputError
from kd_env.policies import make_policy
from kd_env.policies.examples import Examples
from kd_env.randomness import seeded

pytestmark = pytest.mark.long


def log_odds(probability):
    return math.log(probability / (1 - probability))


def entropy(*probabilities):
    return -sum(p * math.log(p) for p in probabilities) / math.log(len(probabilities))


# columns and scorer


def test_columns_by_hand():
    logits = torch.tensor([[[0.7, 0.2, 0.1], [0.6, 0.3, 0.1], [0.1, 0.1, 0.8]]]).log() + 5.0
    first, second, third = scorer_columns(logits)[0].tolist()
    answers = {"first": (0.7 + 0.6 + 0.1) / 3, "third": (0.1 + 0.1 + 0.8) / 3}
    lowest = entropy(0.1, 0.1, 0.8)
    by_hand = [
        [log_odds(0.7), entropy(0.7, 0.2, 0.1), 0.5, 2 / 3, log_odds(answers["first"]), log_odds(0.35), log_odds(0.7) - log_odds(0.8), 0],
        [log_odds(0.6), entropy(0.6, 0.3, 0.1), 0.3, 2 / 3, log_odds(answers["first"]), log_odds(0.4), log_odds(0.6) - log_odds(0.8), 0],
        [log_odds(0.8), lowest, 0.7, 1 / 3, log_odds(answers["third"]), log_odds(0.1), 0, 1],
    ]
    for columns, expected in zip((first, second, third), by_hand, strict=True):
        assert columns == pytest.approx([*expected, expected[1] - lowest], abs=1e-5)


def test_columns_of_certain_teachers_and_of_one_teacher_are_finite():
    assert scorer_columns(torch.tensor([[[1000.0, 0.0], [-1000.0, 0.0]]])).isfinite().all()
    assert scorer_columns(torch.randn(3, 1, 4)).isfinite().all()


def test_the_order_of_teachers_does_not_matter():
    logits, order = torch.randn(5, 4, 3, generator=torch.Generator().manual_seed(0)), [2, 0, 3, 1]
    columns = scorer_columns(logits)
    assert torch.allclose(scorer_columns(logits[:, order]), columns[:, order], atol=1e-6)
    with seeded(0):
        scorer = Scorer(4)
        assert torch.equal(scorer(columns), torch.zeros(5, 4)), "it starts with equal scores"
        torch.nn.init.normal_(scorer.linear.weight)
        torch.nn.init.normal_(scorer.output.weight)
    assert torch.allclose(scorer(columns[:, order]), scorer(columns)[:, order], atol=1e-6)


# members and shares


def test_formulas_by_hand():
    instances = Instances.of(torch.tensor([[[0.9, 0.1], [0.4, 0.6]]]).log(), ())
    assert uniform(instances).tolist() == [[0.5, 0.5]]
    assert most_confident(instances).tolist() == [[1.0, 0.0]]
    scores = [-entropy(0.9, 0.1) / 0.1, -entropy(0.4, 0.6) / 0.1]
    expected = 1 / (1 + math.exp(scores[1] - scores[0]))
    assert low_entropy(instances)[0].tolist() == pytest.approx([expected, 1 - expected], rel=1e-4)


def test_shares_by_hand():
    one_each = torch.tensor([[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 1.0, 1.0]])
    assert fit_shares(one_each).tolist() == pytest.approx([0.25, 0.75])
    assert fit_shares(torch.tensor([[0.2, 0.2], [0.4, 0.4]])).tolist() == pytest.approx([0.0, 1.0], abs=1e-6)
    # d/ds of log(.2 + .6 s) + log(.9 - .4 s) is 0 at s = 23 / 24
    assert fit_shares(torch.tensor([[0.8, 0.5], [0.2, 0.9]]))[0].item() == pytest.approx(23 / 24, abs=1e-3)


def test_the_taught_objective_by_hand():
    logits = torch.tensor([[[2.0, 0.0], [0.0, 4.0]]])
    objective = taught(logits, torch.tensor([1]), temperature=2.0)
    first, second = 1 / (1 + math.e), 1 / (1 + math.exp(-2.0))  # p(class 1) at temperature 2
    mixture = 0.25 * first + 0.75 * second
    expected = mixture**3 / (mixture**3 + (1 - mixture) ** 3)
    loss = objective.loss(torch.tensor([[0.25, 0.75]]).log(), torch.tensor(3.0).log())
    assert loss.item() == pytest.approx(-math.log(expected), rel=1e-5)


def test_the_power_makes_up_for_soft_teachers():
    """Two equally good teachers, the second far more certain: without the power it has nearly all the weight."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(5, (400,), generator=generator)
    signal = torch.nn.functional.one_hot(labels, 5).float()
    soft, certain = (signal + 0.5 * torch.randn(400, 5, generator=generator) for _ in range(2))
    log_probabilities = torch.stack([0.3 * soft, 3.0 * certain], 1).log_softmax(2)
    members = torch.eye(2)[:, None, :].expand(2, 400, 2)  # each member is one teacher
    assert TaughtMixtureLikelihood(log_probabilities, labels).shares(members)[0] > 0.8
    density_shares = fit_shares(log_probabilities.exp()[torch.arange(400), :, labels].T)
    assert density_shares[0] < 0.1


def examples(count, seed):
    """Two teachers: the first is right where its feature is positive, the second elsewhere. Their logits do not say so."""
    generator = torch.Generator().manual_seed(seed)
    labels, side = torch.randint(3, (count,), generator=generator), torch.rand(count, generator=generator) < 0.5
    wrong = (labels + torch.randint(1, 3, (count,), generator=generator)) % 3
    answers = torch.stack([torch.where(side, labels, wrong), torch.where(side, wrong, labels)], 1)
    logits = 3.0 * torch.nn.functional.one_hot(answers, 3).float()
    feature = torch.where(side, 1.0, -1.0)[:, None] + 0.3 * torch.randn(count, 1, generator=generator)
    return Examples(logits, (feature, torch.zeros(count, 1)), labels)


def likelihood(weights, seen):
    chosen = seen.teacher_logits.softmax(2)[torch.arange(len(seen.labels)), :, seen.labels]
    return (weights * chosen).sum(1).log().mean()


def test_the_stack_predicts_unseen_labels_better_than_formulas_do():
    stack, unseen = Stack(examples(60, seed=0), seed=0), examples(500, seed=1)
    instances = Instances.of(unseen.teacher_logits, unseen.teacher_features)
    assert stack.shares.sum().item() == pytest.approx(1.0)
    assert stack.shares[:3].sum() < 0.1, "only the features tell which teacher is right"
    value = likelihood(stack(instances), unseen)
    assert all(value > likelihood(formula(instances), unseen) + 0.3 for formula in (uniform, most_confident, low_entropy))
    right = unseen.teacher_logits.argmax(2) == unseen.labels[:, None]
    assert (stack(instances) * right).sum(1).mean() > 0.9


def test_labels_that_say_nothing_leave_the_formulas():
    """Neither teacher is right more often than chance."""
    seen = examples(60, seed=0)
    noise = Examples(torch.randn(60, 2, 3, generator=torch.Generator().manual_seed(2)), seen.teacher_features, seen.labels)
    unseen = Examples(torch.randn(500, 2, 3, generator=torch.Generator().manual_seed(3)), examples(500, 1).teacher_features, None)
    stack = Stack(noise, seed=0)
    assert stack.shares[:3].sum() > 0.5
    assert (stack(Instances.of(unseen.teacher_logits, unseen.teacher_features)) - 0.5).abs().mean() < 0.1


# the rule


def stacking_of(reward_labels=32, seed=0, rule=Stacking, **options):
    env = make_env(Trial("digits", "uniform", seed, settings={"updates": 20, "reward_labels": reward_labels}))
    env.reset(seed=0)
    return env, make_policy(rule, env, seed, **options)


def weights_of(policy):
    return policy.rule.decide(policy.context.batch())


def test_it_sends_digits_to_the_expert_of_their_domain():
    env, policy = stacking_of(reward_labels=256)
    groups, share = tasks.load("digits").train.groups, []
    for seed in range(10):
        env.reset(seed=seed)
        batch = policy.context.batch()
        share.append(policy.rule.decide(batch)[np.arange(batch.num_rows), groups[batch.example_ids]].mean().item())
    assert np.mean(share) > 0.7


def test_it_reads_no_label_that_its_run_does_not_have(monkeypatch):
    env, honest = stacking_of()
    labelled = env.selection.distillation.reward_split.positions[0]
    monkeypatch.setattr("kd_env.policies.context.labelled_positions", lambda labels, count, seed: labelled)  # drawn by class
    labels = env.selection.data.labels
    others = np.setdiff1d(np.arange(len(labels["reward"])), labelled)
    labels["reward"] = labels["reward"].clone()
    labels["reward"][others] = (labels["reward"][others] + 1) % 10
    assert torch.equal(weights_of(make_policy(Stacking, env, 0)), weights_of(honest))
    labels["reward"][labelled[:8]] = (labels["reward"][labelled[:8]] + 1) % 10
    assert not torch.equal(weights_of(make_policy(Stacking, env, 0)), weights_of(honest))


def test_it_is_the_same_for_a_seed():
    env, first = stacking_of()
    assert torch.equal(weights_of(make_policy(Stacking, env, 0)), weights_of(first))
    assert not torch.equal(weights_of(make_policy(Stacking, env, 1)), weights_of(first))


@pytest.mark.usefixtures("fit_stacks_once")
@pytest.mark.parametrize("rule", [Stacking, TaughtStacking])
def test_sharpness_is_a_power(rule):
    plain = weights_of(stacking_of(rule=rule)[1])
    assert torch.allclose(weights_of(stacking_of(rule=rule, sharpness=2.0)[1]), plain**2 / (plain**2).sum(1, keepdim=True))
    assert torch.allclose(weights_of(stacking_of(rule=rule, sharpness=0.0)[1]), torch.full_like(plain, 0.25))
    assert weights_of(stacking_of(rule=rule, sharpness=1000.0)[1]).amax(1).mean() > 0.9


def test_one_label_is_refused():
    with pytest.raises(InputError, match="reward_labels=1: stacking fits base models and their shares on different labels; use at least 2"):
        stacking_of(reward_labels=1)
