"""A trial that is stopped between two updates resumes and ends in the same record, trace, policy and weights, bit for bit."""

import json

import numpy as np
import pytest
from stopped_trials import Stop, assert_equal, check_stops, run, trial

from kd_env import interrupts
from kd_env.benchmark import checkpoints
from kd_env.benchmark.checkpoints import FOLDER, CheckpointSettings
from kd_env.benchmark.run_trial import run_trials
from kd_env.benchmark.trial import Trial
from kd_env.policies import registry
from kd_env.policies.registry import POLICIES
from kd_env.serialization import pack

KEPT = [
    "reinforce(window=3)",
    "akd(training_episodes=1)",
    "mmkd(buffer=16,every=2)",
    "population(members=3,interval=3,rules=uniform;random_single)",
    *(
        pytest.param(policy, marks=pytest.mark.slow)
        for policy in ("random_single", "reinforce(student_warmup=2,selector_warmup=3)", "ppo(rollout=4)", "mutual_learning", "pcl")
    ),
]
"""Policies whose states differ in kind."""


@pytest.mark.parametrize("policy", KEPT)
def test_a_stopped_trial_ends_equally(policy, tmp_path, monkeypatch):
    _, _, messages = check_stops([trial(policy)], tmp_path, monkeypatch)
    assert len(messages) == 2
    assert all("resumed at update" in line for line in messages)


@pytest.mark.long
def test_a_stopped_trial_of_a_student_with_batch_norm_ends_equally(tmp_path, monkeypatch):
    settings = {"student": "wrn(depth=10,widen=1,dropout=0.2)", "updates": 8, "credit": "first_order"}
    check_stops([trial("reinforce", **settings)], tmp_path, monkeypatch, stops=(2, 3))


@pytest.mark.long
def test_a_stopped_trial_with_teachers_that_learn_ends_equally(tmp_path, monkeypatch):
    settings = {"updates": 8, "augmentation": "crop(padding=1),flip", "teacher_learning": "feedback(lr=0.01)"}
    check_stops([trial("ikd", **settings)], tmp_path, monkeypatch, stops=(2, 3))


@pytest.mark.slow
@pytest.mark.parametrize("policy", [policy for policy in POLICIES if not registry.find(policy).owns_loop and policy != "iakd"])
def test_every_policy_is_resumed(policy, tmp_path, monkeypatch):
    knowledge = registry.find(policy).environment == "kd_env/KnowledgeSelection-v0"
    check_stops([trial(policy, **({"updates": 40} if knowledge else {}))], tmp_path, monkeypatch)


def test_the_line_names_the_update(tmp_path, monkeypatch):
    _, _, messages = run([trial("exp3", seed=5)], tmp_path, monkeypatch, stops=(4,))
    assert messages == ["exp3 seed 5: resumed at update 5 of 14"]


@pytest.mark.parametrize("policy", ["reinforce", pytest.param("amtml", marks=pytest.mark.slow)])
def test_a_stopped_population_ends_equally(policy, tmp_path, monkeypatch):
    check_stops([trial(policy, seed) for seed in (0, 1, 2)], tmp_path, monkeypatch)


@pytest.mark.parametrize("episodes", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_a_population_of_which_a_student_has_diverged_ends_equally(episodes, tmp_path, monkeypatch):
    """New students take its place, which diverge again and again; nobody records them."""
    trials = [trial(f"diverging:BreaksSeed4(training_episodes={episodes})", seed) for seed in (0, 4)]
    records, _, _ = check_stops(trials, tmp_path, monkeypatch, stops=(1, 4, 5))
    assert [record["diverged"] for record in records] == [False, episodes == 0]


@pytest.mark.long
def test_text_with_dropout_ends_equally(tmp_path, monkeypatch):
    settings = {"updates": 6, "student": "tiny-bert(width=8,layers=1,dropout=0.3)", "batch_size": 8}
    stopped = Trial("domains(train=160,reward=48,validation=32,test=16)", "gradient_credit", 0, settings=settings, test=False)
    check_stops([stopped], tmp_path, monkeypatch, stops=(1, 1))


@pytest.mark.long
def test_a_checkpoint_at_every_update_changes_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(interrupts, "MAX_SAVE_SHARE", float("inf"))
    folders = tmp_path / "whole", tmp_path / "saved"
    whole = run([trial("ppo(rollout=4)")], folders[0], monkeypatch)
    saved = run([trial("ppo(rollout=4)")], folders[1], monkeypatch, minutes=0.0)
    assert_equal(whole, saved, [trial("ppo(rollout=4)")], folders)
    assert len(list((folders[1] / FOLDER).iterdir())) == 1
    CheckpointSettings(folders[1]).remove(trial("ppo(rollout=4)"))
    assert not any((folders[1] / FOLDER).iterdir())


class Draws:
    """A policy that draws from NumPy's global generator."""

    access = "nothing"
    env_options = {"action": "one"}

    def __init__(self, context, seed=0):
        np.random.seed(seed)  # noqa: NPY002
        self.slots = context.num_envs

    def act(self, observation):
        return np.random.randint(4, size=self.slots)  # noqa: NPY002


class Stateless(Draws):
    """The same, with a state that is empty, since the generator has all of it."""

    def state(self):
        return {}

    def load_state(self, state):
        assert state == {}


class Saved(Draws):
    """A policy that saves its state in a file."""

    count = 0

    def act(self, observation):
        self.count += 1
        return np.full(self.slots, self.count % 4)

    def save(self, path):
        with open(path, "w") as file:
            json.dump(self.count, file)

    @classmethod
    def load(cls, path, context):
        policy = cls(context)
        with open(path) as file:
            policy.count = json.load(file)
        return policy


@pytest.mark.parametrize("kind", ["Stateless", "Saved"])
def test_a_policy_of_ones_own_ends_equally(kind, tmp_path, monkeypatch):
    check_stops([trial(f"test_checkpoints:{kind}")], tmp_path, monkeypatch)


def test_a_policy_without_a_state_begins_again(tmp_path, monkeypatch):
    run_trials([trial("test_checkpoints:Draws")], tmp_path, lambda _: None, None, CheckpointSettings(tmp_path, 0.0))
    assert not (tmp_path / FOLDER).exists()


def test_time_before_the_stop_counts(tmp_path, monkeypatch):
    monkeypatch.setattr(interrupts, "interrupted", Stop(4))
    with pytest.raises(KeyboardInterrupt):
        run_trials([trial()], tmp_path, lambda _: None, None, CheckpointSettings(tmp_path))
    monkeypatch.setattr(
        checkpoints.Checkpoint, "restore_policies", lambda self, policies: self._content.update(elapsed=1e6) or list(policies)
    )
    (record,), _, _ = run([trial()], tmp_path, monkeypatch)
    assert 1e6 < record["wall_s"] < 1e6 + 300.0


def test_pack_keeps_bytes_and_generators():
    tensors = {}
    value = {"bytes": b"\x00\xff", "numpy": np.random.default_rng(3).bit_generator.state, "nothing": b""}
    packed = json.loads(json.dumps(pack(value, tensors)))
    assert checkpoints.unpack(packed, tensors) == value
