"""Whole trials of policies that weigh hints of feature maps."""

import pytest

from kd_env.benchmark.run_trial import run_trial
from kd_env.benchmark.trial import Trial
from kd_env.models.networks import build
from kd_env.teachers import NetworkTeacher

HERE = "test_trials_with_maps:pool"
SETTINGS = {"student": "resnet8(width=2)", "batch_size": 8, "updates": 4, "kd_weight": 0.5, "knowledge": "response,map_hint(strength=5)"}


def pool(task):
    """Two untrained teachers with maps of the student's size and other numbers of channels."""
    networks = ("resnet8(width=3)", "wrn(depth=10,widen=1)")
    return [NetworkTeacher(f"teacher{k}", build(text, task, k), task, logit_scale=3.0) for k, text in enumerate(networks)]


@pytest.mark.long
@pytest.mark.parametrize("policy", ["camkd", "mmkd", "mtkd_rl", "mtkd_rl_released"])
def test_a_trial_weighs_the_teachers_unlike_uniform_and_can_be_repeated(policy, tmp_path):
    record, again, uniform = (
        run_trial(Trial("digits", name, 0, HERE, settings=SETTINGS), tmp_path / folder)
        for name, folder in ((policy, "one"), (policy, "two"), ("uniform", "three"))
    )
    assert not record["diverged"]
    assert record["curve"] == again["curve"]
    assert record["weight_entropy"] < uniform["weight_entropy"]
