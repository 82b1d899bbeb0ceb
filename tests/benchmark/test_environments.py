"""Policies of the other environments: run by name, recorded whole, and replayed to the last bit."""

import gymnasium as gym
import numpy as np
import other_environments
import pytest
from other_environments import POLICIES, UPDATES, command, run_case

from kd_env.analysis.traces import read_trace
from kd_env.benchmark import records
from kd_env.cli import invoke


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """The folder and the record of a case, run once by the command."""
    finished = {}

    def run(case):
        if case not in finished:
            finished[case] = run_case(case, tmp_path_factory.mktemp("results"))
        return finished[case]

    return run


@pytest.mark.long
@pytest.mark.parametrize("case", POLICIES)
def test_a_policy_of_another_environment_is_run_and_replayed(case, recorded, capsys):
    folder, record = recorded(case)
    assert record["env"]["id"] == getattr(other_environments, POLICIES[case][0]).environment
    assert (record["access"], record["diverged"]) == ("nothing", False)
    assert 0.0 <= record["test"] <= 1.0
    assert (folder / "report.html").exists()
    capsys.readouterr()
    assert invoke(["replay", str(folder), record["trial"]]) == 0
    assert capsys.readouterr().out == f"{record['trial']}: equal\n"


@pytest.mark.parametrize("case", POLICIES)
def test_the_trace_holds_what_the_actions_meant(case, recorded):
    """Against the same policy, driven by hand."""
    policy, settings = POLICIES[case]
    folder, record = recorded(case)
    trace = read_trace(folder / "traces" / f"{record['trial']}.parquet")
    env = gym.make_vec(vectorization_mode="vector_entry_point", **record["env"])
    agent = getattr(other_environments, policy)(env, 3)
    layout = env.unwrapped.selection.layout
    phase, batch = settings.get("updates_per_phase", 1), env.unwrapped.selection.settings.distillation.batch_size
    steps = trace.groupby("update").first().index
    assert len(steps) == UPDATES
    observation = {"progress": np.zeros(env.num_envs)}
    for update in range(UPDATES):
        if update % phase == 0:
            action = np.repeat(agent.act(observation), batch // env.num_envs, axis=0)
        rows = trace[trace["update"] == update]
        slot = rows["slot"].to_numpy()
        assert set(slot) == set(range(batch))
        if policy in ("Soft", "Hard"):
            expected = (action + 1) / 2 if policy == "Soft" else action
            np.testing.assert_allclose(np.stack(rows["gates"].to_list()), expected[slot], atol=1e-6)
            assert (rows["weight"] == 0.25).all(), "all teachers alike"
            continue
        ends = np.cumsum(list(layout.widths.values()))[:-1]
        factors = dict(zip(layout.widths, np.split(action[slot], ends, axis=1), strict=True))
        np.testing.assert_allclose(rows["kd_weight"], (factors["kd_weight"][:, 0] + 1) / 2, atol=1e-6)
        np.testing.assert_allclose(rows["temperature_scale"], 4.0 ** factors["temperature"][:, 0], rtol=1e-5)
        if "knowledge" in factors:
            assert np.array_equal(np.stack(rows["gates"].to_list()), factors["knowledge"] > 0)
            assert np.array_equal(rows["teacher"] == -1, factors["abstain"][:, 0] > 0)
        else:
            assert "gates" not in rows


def test_a_learner_of_another_environment(tmp_path):
    """The record is of the first student that was finished, whatever was begun before."""
    assert invoke(command("Learner", {"kd_weight": 0.5}, tmp_path)) == 0
    (record,) = records.read(tmp_path)
    assert record["env"]["credit"] == "head"
    assert len(read_trace(tmp_path / "traces" / f"{record['trial']}.parquet")["update"].unique()) == UPDATES
