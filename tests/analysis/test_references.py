"""References made from the bank of the digits."""

import gymnasium as gym
import numpy as np
import pytest
import torch

from kd_env.analysis.references import correct_teachers, rule_weights
from kd_env.errors import InputError
from kd_env.types import Decision


@pytest.fixture(scope="module")
def env():
    return gym.make_vec("kd_env/TeacherSelection-v0", num_envs=8, vectorization_mode="vector_entry_point", task="digits", updates=2)


def test_an_expert_is_right_in_its_own_domain(env):
    correct, groups = correct_teachers(env), env.unwrapped.distillation.data.task.train.groups
    assert correct.shape == (len(groups), 4)
    assert set(np.unique(correct)) == {0.0, 1.0}
    for group in range(4):
        rates = correct[groups == group].mean(0)
        assert rates[group] > 0.95
        assert rates.argmax() == group


def test_weights_of_rules(env):
    groups = env.unwrapped.distillation.data.task.train.groups
    assert (rule_weights("oracle", env) == np.eye(4)[groups]).all()
    assert (rule_weights("single:2", env) == np.eye(4)[2]).all()
    logits = env.unwrapped.distillation.data.bank.gather("train", np.arange(len(groups))).logits
    shifted = np.exp(logits - logits.max(2, keepdims=True))
    confidence = (shifted / shifted.sum(2, keepdims=True)).max(2)
    chosen = rule_weights("most_confident", env)
    assert chosen.sum(1).tolist() == [1.0] * len(groups)
    assert (confidence[chosen == 1] >= confidence.max(1) - 1e-5).all()


class TwoTypes:
    access = "teacher outputs"

    def __init__(self, context, seed=0, same=False):
        self.same = same

    def decide(self, batch):
        first = torch.eye(4)[batch.teacher_logits.argmax(2).sum(1) % 4]
        return Decision({"response": first, "hint": first if self.same else 1.0 - first}, {"response": 1.0, "hint": 1.0}, 1.0)


def test_weights_that_differ_between_knowledge_types_are_refused(env):
    assert rule_weights(f"{__name__}:TwoTypes(same=True)", env).sum(1).tolist() == [1.0] * len(env.unwrapped.distillation.data.task.train)
    with pytest.raises(InputError, match="has no weights, or gives knowledge types different ones"):
        rule_weights(f"{__name__}:TwoTypes", env)


def test_knowledge_selection_has_no_weights_of_teachers():
    knowledge = gym.make_vec(
        "kd_env/KnowledgeSelection-v0", num_envs=1, vectorization_mode="vector_entry_point", task="digits", updates=2, action="hard"
    )
    with pytest.raises(InputError, match="actions of this environment select knowledge types"):
        rule_weights("all_knowledge", knowledge)


def test_what_is_no_function_of_the_example_is_refused(env):
    with pytest.raises(InputError, match="depend on the student"):
        rule_weights("majority_sign", env)
    with pytest.raises(InputError, match="is not a rule"):
        rule_weights("reinforce", env)
