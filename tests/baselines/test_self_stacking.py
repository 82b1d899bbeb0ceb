"""Stacking without labels: the start by hand, and that its fit takes weight from a teacher that the others contradict."""

import math

import pytest
import torch

from baselines.self_stacking import SelfStacking, fit, relative_confidence
from baselines.stacking import Instances
from kd_env.benchmark.run_trial import make_env
from kd_env.benchmark.trial import Trial
from kd_env.policies import make_policy
from kd_env.randomness import seeded


def test_relative_confidence_by_hand():
    # standardised: 1 and -1 for the first teacher, -1 and 1 for the second; softmax of (-2, 2)
    weights = relative_confidence(torch.tensor([[2.0, 0.1], [1.0, 0.2]]))
    assert weights[:, 0].tolist() == pytest.approx([1 / (1 + math.exp(4)), 1 / (1 + math.exp(-4))], rel=1e-4)
    assert weights.sum(1).tolist() == pytest.approx([1.0, 1.0])


def test_a_teacher_that_is_always_equally_sure_is_at_its_mean():
    weights = relative_confidence(torch.tensor([[0.5, 1.0], [0.5, 3.0]]))
    assert weights[:, 0].tolist() == pytest.approx([1 / (1 + math.exp(2)), 1 / (1 + math.exp(-2))], rel=1e-4)
    assert relative_confidence(torch.zeros(3, 2)).tolist() == [[0.5, 0.5]] * 3


def test_the_scale_of_a_teacher_does_not_matter():
    entropy = torch.rand(50, 3, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(relative_confidence(entropy * torch.tensor([1.0, 5.0, 0.1])), relative_confidence(entropy), atol=1e-4)


def test_a_teacher_that_the_others_contradict_loses_weight():
    """Three teachers know the label; the fourth is as sure of a random class."""
    generator = torch.Generator().manual_seed(0)
    labels, noise = (torch.randint(5, (400,), generator=generator) for _ in range(2))
    sure = 2.0 + 3.0 * torch.rand(400, 4, 1, generator=generator)
    logits = sure * torch.nn.functional.one_hot(torch.stack([labels, labels, labels, noise], 1), 5)
    start = relative_confidence(torch.special.entr(logits.softmax(2)).sum(2)).mean(0)
    instances = Instances.of(logits, ())
    with seeded(0), torch.no_grad():
        weights = fit(logits, instances)(instances).mean(0)
    assert start.tolist() == pytest.approx([0.25] * 4, abs=0.02)
    assert weights.argmin() == 3
    assert weights[3] < start[3] - 0.03


@pytest.mark.long
def test_the_rule_reads_no_label():
    env = make_env(Trial("digits", "uniform", 0, settings={"updates": 20, "reward_labels": 1}))
    env.reset(seed=0)
    weights = make_policy(SelfStacking, env, 0).rule.decide(make_policy(SelfStacking, env, 0).context.batch())
    assert weights.sum(1).tolist() == pytest.approx([1.0] * 32, abs=1e-5)
    labels = env.selection.data.labels
    for split in list(labels):
        labels[split] = torch.zeros_like(labels[split])
    policy = make_policy(SelfStacking, env, 0)
    assert torch.equal(policy.rule.decide(policy.context.batch()), weights)
