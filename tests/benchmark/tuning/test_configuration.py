"""Names of tuned policies, and trials with a configuration."""

import pytest

from kd_env.benchmark.rerun import trial_of
from kd_env.benchmark.summary import base_name
from kd_env.benchmark.trial import Trial
from kd_env.benchmark.tuning.configuration import Configuration, untuned_name

TUNED = Configuration({"window": 4}, {"temperature": 3.0, "optimizer": "adam(lr=0.01)"}, 12)


def test_names():
    assert TUNED.of_policy("reinforce(baseline=False)") == "reinforce(baseline=False,window=4)"
    assert TUNED.tuned_name("reinforce(baseline=False)") == "reinforce(baseline=False), tuned 12"
    assert untuned_name("reinforce(baseline=False), tuned 12") == "reinforce(baseline=False)"
    assert untuned_name("reinforce") == "reinforce"
    assert base_name("reinforce(baseline=False), tuned 12") == base_name("reinforce, tuned 12") == "reinforce"


def test_a_configuration_goes_before_the_settings_of_its_trial():
    trial = Trial("digits", "reinforce", 0, settings={"temperature": 2.0, "updates": 7}, tuned=TUNED)
    policy, settings = trial.resolved.policy, trial.resolved.settings.distillation
    assert (policy.name, policy.options) == ("reinforce, tuned 12", {"window": 4})
    assert (settings.temperature, settings.optimizer, settings.updates) == (3.0, "adam(lr=0.01)", 7)
    assert trial.config["temperature"] == 2.0, "the setting in which the policy is compared"
    assert trial.config["tuned"] == {"options": {"window": 4}, "settings": {"temperature": 3.0, "optimizer": "adam(lr=0.01)"}, "trials": 12}


def test_trials_with_other_configurations_are_other_trials():
    configurations = [
        None, Configuration(trials=12), Configuration(trials=6), TUNED, Configuration({"window": 5}, TUNED.settings, 12),
        Configuration(TUNED.options, {**TUNED.settings, "temperature": 4.0}, 12),
    ]  # fmt: skip
    assert len({Trial("digits", "reinforce", 0, tuned=each).id for each in configurations}) == len(configurations)


@pytest.mark.parametrize("tuned", [None, TUNED, Configuration(trials=3)])
def test_the_trial_of_a_record_has_its_configuration(tuned):
    trial = Trial("digits", "reinforce(baseline=False)", 3, "digits/mixed", settings={"updates": 7}, command="x", tuned=tuned)
    env = {"task": "digits", "teachers": "digits/mixed", "bank": None}
    record = {"config": trial.config, "policy": trial.resolved.policy.name, "seed": 3, "suite": "run", "env": env}
    assert trial_of(record) == trial
    assert trial_of(record).id == trial.id
