"""Records become Minari datasets that hold what the policies observed, did and got."""

import sys

import numpy as np
import pytest

from kd_env.analysis.traces import read_trace
from kd_env.benchmark import records
from kd_env.benchmark.minari_export import export, rollout
from kd_env.benchmark.rerun import trial_of
from kd_env.benchmark.run_trial import EPISODE_SEEDS, make_env, run_trial
from kd_env.benchmark.trial import Trial
from kd_env.cli import invoke
from kd_env.errors import InputError

pytestmark = pytest.mark.long

minari = pytest.importorskip("minari")

UPDATES, SIZE = 6, 4
SMALL = {"updates": UPDATES, "batch_size": SIZE, "student": "mlp(width=8)", "reward_examples": 20}
NAME = "kd-env/test-v0"


@pytest.fixture(autouse=True)
def datasets(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "datasets"))


def recorded(folder, policy, seed=3, **settings):
    trial = Trial("digits", policy, seed, settings={**SMALL, **settings})
    record = run_trial(trial, folder)
    records.append(folder, record)
    return record


def exported(*chosen):
    lines = []
    export(chosen, NAME, lines.append)
    assert [line.partition(": ")[2] for line in lines] == ["running the trial again"] * len(chosen), "no reward differs"
    return minari.load_dataset(NAME)


def stacked(episodes, name):
    return np.stack([getattr(episode, name) for episode in episodes], 1)


@pytest.mark.parametrize(
    ("policy", "settings"),
    [
        ("reinforce", {"validation_every": 2}),
        ("gradient_credit", {"teacher_cost": 0.1, "observe_labels": True, "kd_weight": 0.5}),
        ("uniform", {}),
        ("sb3:PPO(n_steps=4,batch_size=8,n_epochs=1)", {}),
    ],
)
def test_the_dataset_holds_the_record_s_episode(policy, settings, tmp_path):
    record = recorded(tmp_path, policy, **settings)
    dataset = exported(record)
    episodes = list(dataset.iterate_episodes())
    assert (dataset.total_episodes, dataset.total_steps) == (SIZE, SIZE * UPDATES)
    rewards = stacked(episodes, "rewards")
    assert sum(row.mean() for row in rewards) == pytest.approx(record["reward_sum"], rel=1e-12)
    assert stacked(episodes, "terminations").tolist() == [[False] * SIZE] * (UPDATES - 1) + [[True] * SIZE]
    assert not stacked(episodes, "truncations").any()

    trace = read_trace(tmp_path / "traces" / f"{record['trial']}.parquet")
    env = make_env(Trial("digits", policy, 3, settings={**SMALL, **settings}))
    actions = stacked(episodes, "actions")
    weights = np.zeros((UPDATES, SIZE, 4), np.float32)
    taught = trace[trace["teacher"] >= 0]
    weights[taught["update"], taught["slot"], taught["teacher"]] = taught["weight"]
    decoded = np.stack([env.selection.action_kind.decode(step, SIZE).weights for step in actions])
    np.testing.assert_array_equal(decoded, weights)

    observation, info = env.reset(seed=3)
    for step in range(UPDATES):
        for slot, episode in enumerate(episodes):
            for name, block in observation.items():
                np.testing.assert_array_equal(episode.observations[name][step], block[slot])
            assert episode.infos["example_ids"][step + 1] == info["example_ids"][slot]
            assert dataset.action_space.contains(episode.actions[step])
        next_observation, *_, info = env.step(actions[step])
        observation, info = (
            next_observation,
            info if step + 1 == UPDATES else {"example_ids": env.selection.distillation.observe().example_ids},
        )
    for slot, episode in enumerate(episodes):
        for name, block in episode.observations.items():
            np.testing.assert_array_equal(block[UPDATES], info["final_obs"][slot][name])


def test_infos_have_a_value_for_each_step_and_nan_for_what_was_not_measured(tmp_path):
    record = recorded(tmp_path, "sb3:A2C", validation_every=4, teacher_cost=0.1, observe_labels=True, kd_weight=0.5)
    (episode, *_) = exported(record).iterate_episodes()
    infos = episode.infos
    assert infos.keys() == {"example_ids", "diverged", "credit", "credit_fold", "teacher_calls", "student_ce", "validation"}
    assert infos["credit"].shape == (1 + UPDATES, 4)
    assert np.isnan(infos["credit"][0]).all()
    assert np.isfinite(infos["credit"][1:]).all()
    assert np.isfinite(infos["validation"]).tolist() == [False, False, False, False, True, False, True]
    assert infos["validation"][-1] == record["validation"]
    chosen = episode.actions / np.maximum(episode.actions.sum(1, keepdims=True), 1)
    expected = (chosen * infos["credit"][1:]).sum(1) - 0.1 * infos["teacher_calls"][1:]
    np.testing.assert_allclose(episode.rewards, expected, rtol=1e-5, atol=1e-8)


def test_several_records_are_one_dataset_that_names_them(tmp_path):
    chosen = [recorded(tmp_path, policy, seed) for policy in ("reinforce", "reinforce(window=4)") for seed in (0, 1)]
    dataset = exported(*chosen)
    metadata = list(dataset.storage.get_episode_metadata(range(dataset.total_episodes)))
    assert [(item["trial"], item["slot"]) for item in metadata] == [(record["trial"], slot) for record in chosen for slot in range(SIZE)]
    assert {(item["policy"], item["seed"]) for item in metadata} == {(record["policy"], record["seed"]) for record in chosen}
    assert dataset.storage.metadata["algorithm_name"] == "reinforce, reinforce(window=4)"


def test_students_before_the_record_s_are_in_the_dataset(tmp_path):
    record = recorded(tmp_path, "akd(training_episodes=2)", knowledge="response,layer", updates_per_phase=2)
    students = rollout(record)
    assert [student.rewards.shape for student in students] == [(3, 1)] * 3
    assert students[-1].rewards.mean(1).sum() == pytest.approx(record["reward_sum"])
    dataset = exported(record)
    metadata = list(dataset.storage.get_episode_metadata(range(dataset.total_episodes)))
    assert [(item["student"], item["recorded"], item["seed"]) for item in metadata] == [
        (0, False, 3 + 2 * EPISODE_SEEDS),
        (1, False, 3 + EPISODE_SEEDS),
        (2, True, 3),
    ]
    first = next(dataset.iterate_episodes([0]))
    env = make_env(trial_of(record))
    observation, _ = env.reset(seed=int(metadata[0]["seed"]))
    for name, block in observation.items():
        np.testing.assert_array_equal(first.observations[name][0], block[0])


def test_peers_are_left_out(tmp_path):
    record = recorded(tmp_path, "reinforce", knowledge="response,peer", num_students=2)
    (student,) = rollout(record)
    assert student.rewards.shape == (UPDATES, SIZE)
    assert student.rewards.mean(1).sum() == pytest.approx(record["reward_sum"])
    assert exported(record).total_episodes == SIZE


def test_rewards_that_are_not_those_of_the_record_are_said(tmp_path):
    lines = []
    export([{**recorded(tmp_path, "reinforce"), "reward_sum": 5.0}], NAME, lines.append)
    assert "and to 5 in the record; it was made on another kind of processor" in lines[-1]


def test_what_cannot_be_exported_is_refused(tmp_path, monkeypatch):
    reinforce, single, camkd = (recorded(tmp_path, policy) for policy in ("reinforce", "random_single", "camkd"))
    with pytest.raises(InputError, match="policies 'reinforce' and 'random_single' have different observations or actions"):
        export([reinforce, single], NAME, print)
    with pytest.raises(InputError, match="policy 'camkd': it returns whole decisions"):
        export([camkd], NAME, print)
    with pytest.raises(InputError, match=r"--out 'a b': .*Malformed"):
        export([reinforce], "a b", print)
    with pytest.raises(InputError, match="--out 'digits': the name has no version; end it with one, as digits-v0"):
        export([reinforce], "digits", print)
    export([reinforce], NAME, print)
    with pytest.raises(InputError, match="this dataset exists; take another name"):
        export([reinforce], NAME, print)
    monkeypatch.setitem(sys.modules, "minari", None)
    with pytest.raises(InputError, match=r"pip install 'kd-env\[minari\]'"):
        export([reinforce], NAME, print)


def test_the_command_prints_the_folder(tmp_path, capsys):
    recorded(tmp_path, "reinforce")
    recorded(tmp_path, "camkd")
    assert invoke(["export-minari", str(tmp_path), "--policy", "reinforce", "--seed", "3", "--out", NAME]) == 0
    output = capsys.readouterr()
    assert output.out.strip() == str(minari.load_dataset(NAME).storage.data_path)
    assert output.err.startswith("[1/1] digits-reinforce-s3-")
