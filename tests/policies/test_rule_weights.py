"""Weights that a rule returns and that its kind of action cannot express, or that have to be converted."""

import pytest
from uniform_rule import SETTINGS, Rule, env_of

from kd_env.benchmark.run_trial import make_env
from kd_env.benchmark.trial import Trial
from kd_env.envs.actions import make_action
from kd_env.errors import InputError
from kd_env.policies import make_policy, run_episode


class Zero(Rule):
    def decide(self, batch):
        weights = super().decide(batch)
        weights[2] = 0.0
        return weights


@pytest.mark.parametrize("action", ["weights", "one"])
def test_an_action_that_must_select_a_teacher_refuses_a_row_of_zeros(action):
    env = make_env(Trial("digits", f"{__name__}:Zero", 0, settings=SETTINGS))
    env.selection.action_kind = make_action(action, env.selection.layout)
    with pytest.raises(InputError, match=rf"action '{action}' cannot say that no teacher teaches .* slot 2 are all 0; use action=subset"):
        run_episode(env, make_policy(Zero, env), 0)


class Rounded(Rule):
    def decide(self, batch):
        weights = super().decide(batch)
        weights[:, 0] = -1e-17
        return weights


class Negative(Rule):
    def decide(self, batch):
        return -super().decide(batch)


def test_rounding_below_0_is_0_and_a_negative_weight_is_refused():
    env = env_of(Rounded)
    run_episode(env, make_policy(Rounded, env), 0)
    env = env_of(Negative)
    with pytest.raises(InputError, match=r"action 'weights': weights below 0, such as -0\.25; return weights of at least 0"):
        run_episode(env, make_policy(Negative, env), 0)


class Half(Rule):
    def decide(self, batch):
        return super().decide(batch).bfloat16()


def test_weights_in_bfloat16_are_converted():
    losses = []
    for kind in (Rule, Half):
        env = env_of(kind)
        run_episode(env, make_policy(kind, env), 0)
        losses.append(env.selection.finished[0].validate()[0])
    assert losses[0] == losses[1], "a quarter has no rounding"
