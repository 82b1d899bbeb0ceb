"""The batched learners do what separate networks do, each with an optimizer of its own."""

import copy

import pytest
import torch

from agents.credit_learners import CreditLearners
from baselines.gating import GatingNetwork, standardise
from baselines.scorer import Scorer
from baselines.stacking import Instances
from kd_env.randomness import seeded

HOLDS = (1.0, 0.1)
FOLDS = 3
RATE = 0.01


def drawn(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def instances():
    return Instances.of(3.0 * drawn(0, 20, 4, 5), [drawn(1, 20, 2)] * 4)


@pytest.fixture
def log_priors():
    return drawn(2, 2, 20, 4).log_softmax(2)


class Separate(torch.nn.Module):
    """One policy of one fold."""

    def __init__(self, instances, hold):
        super().__init__()
        self.gate, self.scorer, self.hold = GatingNetwork(20, 4), Scorer(4), hold
        standardise(self.gate, instances.outputs)
        self.scorer.standardise(instances.columns)
        for parameter in self.gate.body[-1].parameters():
            torch.nn.init.zeros_(parameter)
        self.optimizer = torch.optim.Adam(self.parameters(), lr=RATE)

    def log_policy(self, instances, log_prior):
        return (log_prior + self.gate(instances.outputs) + self.scorer(instances.columns)).log_softmax(1)

    def learn(self, instances, log_prior, credit):
        log_policy = self.log_policy(instances, log_prior)
        divergence = (log_policy.exp() * (log_policy - log_prior)).sum(1)
        loss = (self.hold * divergence - (log_policy.exp() * credit).sum(1)).mean()
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters(), 1.0)
        self.optimizer.step()


@pytest.mark.parametrize("size", [1.0, 100.0], ids=["small", "clipped"])
def test_each_learner_is_a_network_of_its_own(instances, log_priors, size):
    with seeded(3):
        learners = CreditLearners(instances, RATE, HOLDS, FOLDS)
    with seeded(3):  # all learners of the first policy are drawn first
        separate = [[Separate(instances, hold) for _ in range(FOLDS)] for hold in HOLDS]
    for update, left_out in enumerate([0, 1, 1, None, 2]):
        credit = size * drawn(10 + update, 20, 4)
        learners.learn(instances, log_priors, credit, left_out)
        for policy, of_folds in enumerate(separate):
            for fold, network in enumerate(of_folds):
                if fold != left_out:
                    network.learn(instances, log_priors[policy], credit)
    with torch.no_grad():
        expected = [[of_folds[fold].log_policy(instances, log_priors[p]) for p, of_folds in enumerate(separate)] for fold in range(FOLDS)]
        log_policies = learners.log_policies(instances, log_priors)
    torch.testing.assert_close(log_policies, torch.stack([torch.stack(fold) for fold in expected]), atol=1e-5, rtol=0)
    assert (log_policies - log_priors).abs().max() > 0.05, "they have learned"


def test_a_copy_learns_by_itself(instances, log_priors):
    first = CreditLearners(instances, RATE, HOLDS, FOLDS)
    second = copy.deepcopy(first)
    before = copy.deepcopy(first.state_dict())
    second.learn(instances, log_priors, drawn(4, 20, 4))
    assert all(torch.equal(value, before[name]) for name, value in first.state_dict().items())
    assert all((second.folds[fold]["gate_output"] != first.folds[fold]["gate_output"]).any() for fold in range(FOLDS))


def test_a_state_continues_the_same_steps(instances, log_priors):
    first, second = (CreditLearners(instances, RATE, HOLDS, FOLDS) for _ in range(2))
    first.learn(instances, log_priors, drawn(4, 20, 4), left_out=1)
    second.load_state(copy.deepcopy(first.state()))
    for learners in (first, second):
        learners.learn(instances, log_priors, drawn(5, 20, 4), left_out=2)
    with torch.no_grad():
        assert torch.equal(first.log_policies(instances, log_priors), second.log_policies(instances, log_priors))
