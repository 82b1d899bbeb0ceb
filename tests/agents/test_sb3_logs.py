"""Where Stable-Baselines3's algorithms log."""

import pytest

from kd_env.benchmark.run_trial import make_env, teach
from kd_env.benchmark.trial import Trial
from kd_env.policies import registry


def make(policy):
    env = make_env(Trial("digits", policy, 0, settings={"updates": 4}))
    return env, registry.find(policy).build(env, 0)


@pytest.mark.long
def test_stable_baselines3_leaves_no_folders_behind_unless_it_is_asked_to_log(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    env, agent = make("sb3:A2C")
    teach(env, [agent], [0])
    agent.save(str(tmp_path / "agent.zip"))
    type(agent).load(str(tmp_path / "agent.zip"), env).learn(env, 4)
    assert not list((tmp_path / "temporary").iterdir())
    log = tmp_path / "log"
    env, agent = make(f"sb3:A2C(tensorboard_log='{log}')")
    teach(env, [agent], [0])
    assert list(log.rglob("events*"))
