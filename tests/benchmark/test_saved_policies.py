"""Saved policies go on elsewhere: frozen or learning, on another seed, pool, number of teachers, student and task."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from kd_env.benchmark import records
from kd_env.benchmark.grouping import by_setting
from kd_env.benchmark.progress import Progress
from kd_env.benchmark.replay import replay
from kd_env.benchmark.rerun import rerun, trial_of
from kd_env.benchmark.run import run
from kd_env.benchmark.run_trial import run_trial
from kd_env.benchmark.saved_policies import Source, agent_file, find, save, source_of
from kd_env.benchmark.trial import Trial
from kd_env.errors import InputError

OTHERS = ["exp3", "reinforce", "sb3:A2C", "held_credit", "scorer_credit"]
SETTINGS = {"updates": 12, "student": "mlp(width=8)", "batch_size": 8, "reward_labels": 48}


def trials_of(policies, seeds=(0,), teachers="digits/experts", **changes):
    return [Trial("digits", policy, seed, teachers, settings=SETTINGS, test=False, **changes) for seed in seeds for policy in policies]


@pytest.fixture(scope="module")
def learned(tmp_path_factory, fit_stacks_once):
    """Policies that learned on four experts: two seeds of ppo, one each of others; uniform learns nothing and is not saved."""
    folder = tmp_path_factory.mktemp("learned")
    trials = trials_of(["ppo", "uniform"], (0, 1), save_policy=True) + trials_of(OTHERS, save_policy=True)
    run(trials, folder, Progress(quiet=True), population=2)
    return folder


def used(folder, policy="ppo", seed=0, frozen=True, teachers="digits/experts", task="digits", **settings):
    (file,) = find(folder, [policy], [seed])[seed]
    all_settings = {**SETTINGS, **settings}
    place = str(folder)
    return Trial(
        task, policy, seed, teachers, settings=all_settings, test=False, policy_from=str(file), policy_from_name=place, frozen=frozen
    )


def network(file):
    return [value for _, value in sorted(load_file(file).items())]


@pytest.mark.long
def test_what_can_learn_is_saved_with_where_it_comes_from(learned):
    files = sorted((learned / "policies").iterdir())
    assert len(files) == 2 * (2 + len(OTHERS))
    source = source_of(find(learned, ["ppo"], [1])[1][0])
    assert (source.policy, source.task, source.pool, source.seed, source.updates) == ("ppo", "digits", "digits/experts", 1, 12)
    assert source.shape == {
        "number of teachers": 4, "number of classes": 10, "instance": 3, "teachers": 24, "student": 3, "progress": 1
    }  # fmt: skip
    assert source.trial in {record["trial"] for record in records.read(learned)}


@pytest.mark.long
@pytest.mark.parametrize(
    "target",
    [
        {},
        {"teachers": "digits/capacity"},
        {"student": "mlp(width=20)"},
        {
            "task": "domains(train=160,reward=48,validation=32,test=16)",
            "teachers": "domains/experts",
            "student": "tiny-bert(width=8,layers=1)",
            "updates": 4,
        },
    ],
    ids=["same", "three teachers", "another student", "text"],
)
@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("policy", ["ppo", "scorer_credit"])
def test_it_is_used_elsewhere(learned, policy, target, frozen, tmp_path):
    trial = dataclasses.replace(used(learned, policy, frozen=frozen, **target), save_policy=True)
    record = run_trial(trial, tmp_path)
    assert record["policy"] == f"{policy} from {learned}{', frozen' if frozen else ''}"
    assert record["config"]["policy_from"]["trial"] == source_of(Path(trial.policy_from)).trial
    assert record["config"]["policy_from"]["pool"] == "digits/experts"
    before, after = network(trial.policy_from), network(agent_file(tmp_path, trial.id))
    unchanged = [a.shape == b.shape and torch.equal(a, b) for a, b in zip(before, after, strict=True)]
    weights = [same for same, value in zip(unchanged, before, strict=True) if value.ndim == 2 and value.shape[0] > 1]
    weights = weights[:1] if policy == "scorer_credit" else weights  # after the scorer come its start, a copy, and the optimizer
    assert all(weights) if frozen else not any(weights)


def test_without_learning_no_credit_is_computed(learned):
    options = {frozen: used(learned, "scorer_credit", frozen=frozen).resolved.settings.reward.credit for frozen in (True, False)}
    assert options == {True: "shared", False: "first_order(smoothing=-0.3)"}


@pytest.mark.parametrize("policy", ["held_credit", "exp3"])
def test_what_does_not_observe_serves_another_student(learned, policy, tmp_path):
    """Without learning it teaches as it would teach the student that it learned on."""
    rates = [run_trial(used(learned, policy, student=student), tmp_path)["selection_rate"] for student in ("mlp(width=8)", "mlp(width=20)")]
    np.testing.assert_allclose(*rates, atol=1e-9)


@pytest.mark.long
def test_a_population_uses_the_policy_of_each_seed(learned, tmp_path):
    trials = [used(learned, seed=seed, precision="float64") for seed in (0, 1)]
    run(trials, tmp_path / "together", Progress(quiet=True), population=2)
    together = {record["seed"]: record for record in records.read(tmp_path / "together")}
    for trial in trials:
        alone = run_trial(trial, tmp_path / "alone")
        assert together[trial.seed]["config"]["population"] == 2
        assert together[trial.seed]["config"]["policy_from"]["seed"] == trial.seed
        np.testing.assert_allclose(together[trial.seed]["selection_rate"], alone["selection_rate"], atol=1e-9)


def test_the_record_is_replayed_and_rerun(learned, tmp_path):
    trial = used(learned)
    record = run_trial(trial, tmp_path)
    records.append(tmp_path, record)
    assert replay(tmp_path, trial.id) == []
    assert trial_of(record).id == trial.id
    assert rerun([record]) == {trial.id: []}


@pytest.mark.long
def test_frozen_learning_and_new_are_different_trials_in_one_table(learned, tmp_path):
    trials = [used(learned), used(learned, frozen=False), *trials_of(["ppo"])]
    assert len({trial.id for trial in trials}) == 3
    finished = [run_trial(trial, tmp_path) for trial in trials]
    (setting,) = by_setting(finished).values()
    assert len({record["policy"] for record in setting}) == 3


def test_sb3_goes_on_or_is_frozen(learned, tmp_path):
    for frozen in (True, False):
        record = run_trial(used(learned, "sb3:A2C", frozen=frozen), tmp_path)
        assert record["curve"][-1]["update"] == 12


def test_a_finished_trial_without_its_policy_runs_again(tmp_path):
    (trial,) = trials_of(["exp3"])
    run([trial], tmp_path, Progress(quiet=True))
    assert not (tmp_path / "policies").exists()
    run([dataclasses.replace(trial, save_policy=True)], tmp_path, Progress(quiet=True))
    assert agent_file(tmp_path, trial.id).exists()
    assert len(records.read(tmp_path)) == 1


@pytest.mark.parametrize(
    ("policy", "target", "message"),
    [
        ("exp3", {"teachers": "digits/capacity"}, "exp3 learned on digits with number of teachers 4, here 3; it needs the same numbers"),
        ("held_credit", {"teachers": "digits/capacity"}, "held_credit learned on digits with number of teachers 4, here 3; it needs"),
        ("reinforce", {"student": "mlp(width=20)"}, "reinforce learned on digits with instance 8, here 20; it needs the same numbers"),
        ("ppo", {"observe_labels": True}, "does not fit the settings of this trial: Error"),
    ],
)
def test_what_does_not_fit_is_refused_before_a_trial_starts(learned, policy, target, message, tmp_path):
    with pytest.raises(InputError) as refused:
        run([used(learned, policy, **target)], tmp_path, Progress(quiet=True))
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "results.jsonl").exists()


def test_a_place_without_the_policy_is_named(learned, tmp_path):
    with pytest.raises(InputError, match=r"holds no saved policies; kd-env run --save-policy"):
        find(tmp_path, ["ppo"], [0])
    with pytest.raises(InputError, match=r"holds no 'akd', but exp3, held_credit, ppo, reinforce, sb3:A2C, scorer_credit"):
        find(learned, ["akd"], [0])
    with pytest.raises(InputError, match=r"0 policies 'ppo' of seed 7 among seeds 0, 1; give these --seeds, or name one file"):
        find(learned, ["ppo"], [7])
    assert find(learned, ["exp3()"], [7])[7] == find(learned, ["exp3"], [0])[0]
    assert find(learned, ["exp3"], [7])[7] == find(learned, ["exp3"], [0])[0], "the only one serves every seed"
    (tmp_path / "some.agent").write_text("")
    with pytest.raises(InputError, match=r"some\.agent: not a saved policy"):
        find(tmp_path / "some.agent", [], [0])
    assert len(find(find(learned, ["ppo"], [1])[1][0], [], [5])[5]) == 1, "a file serves every seed"


class Unsaved:
    def __init__(self, makes_folder):
        self.makes_folder = makes_folder

    def save(self, path):
        if self.makes_folder:
            Path(path).mkdir()


@pytest.mark.parametrize("makes_folder", [False, True])
def test_a_policy_that_saves_no_file_is_named(tmp_path, makes_folder):
    source = Source("mine:Policy", "trial", "digits", "digits/experts", 0, 12, {})
    with pytest.raises(InputError, match=r"policy 'mine:Policy': save\(\) wrote no file at the path that it got; write one file there"):
        save(tmp_path, Unsaved(makes_folder), source)


def test_a_changed_source_is_named(tmp_path):
    source = Source("ppo", "trial", "digits", "digits/experts", 0, 12, {"number of teachers": 4})
    save(tmp_path, SimpleNamespace(save=lambda path: Path(path).write_text("weights")), source)
    file = agent_file(tmp_path, "trial")
    assert source_of(file) == source
    for old, new in (('"seed": 0', '"seed": 1'), ('"number of teachers": 4', '"number of teachers": 5')):
        content = file.with_suffix(".json").read_text()
        file.with_suffix(".json").write_text(content.replace(old, new))
        with pytest.raises(InputError, match=r"trial.agent: the .json file beside it has changed since it was written"):
            source_of(file)
        file.with_suffix(".json").write_text(content)
