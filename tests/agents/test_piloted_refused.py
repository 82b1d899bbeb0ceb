"""``piloted``: learners, rules and students that cannot be used."""

import numpy as np
import pytest
import torch
from piloted_play import in_pilot_phase, make, taught

from kd_env.errors import InputError

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("fit_stacks_once")]


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        ("piloted(learner=uniform)", "'uniform' has no method weigh"),
        (f"piloted(learner={__name__}:WeighsAlone)", "has no method act"),
        ("piloted(rules=reinforce)", "'reinforce' in rules is not a rule"),
        ("piloted(rules=oracle)", "rule 'oracle' reads 'privileged', more than the 'reward labels' of piloted"),
        ("piloted(rules=lookahead)", "rule 'lookahead' reads more of a student than its mini-batches"),
        ("piloted(rules=unifrom)", "piloted: rules='unifrom': unknown policy 'unifrom'"),
        ("piloted(rules=)", "name some"),
        ("piloted(margin=-1)", "margin"),
        ("piloted(learner=crossfit_credit(rate=-1))", "piloted: its learner cannot be made: .*rate"),
    ],
)
def test_options_that_cannot_work_are_refused(policy, message):
    with pytest.raises(InputError, match=message):
        make(policy)


class WeighsAlone:
    access = "reward labels"

    def __init__(self, context, seed=0):
        self.context = context

    def weigh(self, batch):
        return np.full((batch.num_rows, batch.num_teachers), 0.25, dtype=np.float32)


class NotNormalised:
    """A rule whose weights are not normalised."""

    access = "teacher outputs"

    def __init__(self, context, seed=0, weights=1.0):
        self.weights = torch.tensor([weights, 1.0, 1.0, 1.0], requires_grad=True)

    def decide(self, batch):
        return self.weights.expand(batch.num_rows, -1)


class WrongShape(NotNormalised):
    def decide(self, batch):
        return self.weights[:1].expand(batch.num_rows)


def test_weights_of_a_rule_are_normalised_and_without_gradient():
    agent, weights = taught(f"piloted(rules={__name__}:NotNormalised(weights=5.0))", [0.1, 0.9])
    assert np.allclose(weights[8:], [0.625, 0.125, 0.125, 0.125])
    rule_weights = agent._weights_for(0, agent.context.batch())
    assert np.allclose(rule_weights, [0.625, 0.125, 0.125, 0.125])
    assert not rule_weights.requires_grad


@pytest.mark.parametrize(
    ("rule", "message"),
    [("WrongShape", r"returns weights of shape \(32,\), expected \(32, 4\)"), ("NotNormalised(weights=-1.0)", "negative, or 0 for all")],
)
def test_weights_that_cannot_be_taught_are_refused(rule, message):
    _, agent, observation = in_pilot_phase(f"piloted(rules={__name__}:{rule})")
    with pytest.raises(InputError, match=message):
        agent.act(observation)


def test_students_that_cannot_be_taught_at_once_are_refused():
    with pytest.raises(InputError, match=r"policy 'piloted' teaches several students of its own at once; .*BatchNorm1d"):
        make(student=f"{__name__}:Normalised")


class Normalised(torch.nn.Module):
    """A student with a BatchNorm."""

    def __init__(self, task):
        super().__init__()
        inputs = task.train.inputs[0].size
        self.body = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(inputs, 8), torch.nn.BatchNorm1d(8))
        self.classifier = torch.nn.Linear(8, task.num_classes)

    def forward(self, pixel_values):
        features = self.body(pixel_values)
        return self.classifier(features), features


def test_one_label_cannot_teach_and_score():
    with pytest.raises(InputError, match="use at least 2"):
        make(reward_labels=1)
