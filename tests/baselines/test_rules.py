"""Rules against values worked out by hand, and what each of them may read."""

import numpy as np
import pytest
import torch
from rule_problems import env_and_policy, weights_of
from weighing import decided

from baselines.most_confident import choose
from kd_env import tasks
from kd_env.benchmark.run_trial import run_trial
from kd_env.benchmark.trial import Trial
from kd_env.errors import InputError
from kd_env.policies import registry
from kd_env.policies.rules import RulePolicy
from kd_env.teachers import Pool
from kd_env.types import Decision, ModelOutput

RULES = [name for name, path in registry.POLICIES.items() if path.startswith("baselines.") and name != "iakd"]
"""All rules but ``iakd``, whose student must match a teacher: ``test_iakd.py``."""


# rules by hand


def test_the_surest_teacher_by_hand():
    logits = torch.tensor([[[0.0, 1.0], [3.0, 0.0]], [[5.0, 0.0], [0.0, 4.0]], [[2.0, 0.0], [0.0, 2.0]]])
    assert choose(logits).tolist() == [1, 0, 0], "the first of equals"


def test_the_surest_of_saturated_teachers_is_still_told_apart():
    logits = torch.tensor([[[20.0, 0.0, 0.0], [30.0, 0.0, 0.0]]])
    assert logits.softmax(2).amax(2).tolist() == [[1.0, 1.0]]
    assert choose(logits.double()).tolist() == [1]


def test_uniform_is_one_over_k_exactly():
    env, policy = env_and_policy("uniform")
    weights, _ = weights_of(env, policy)
    assert (weights == 0.25).all()
    env, policy = env_and_policy("uniform", "digits/capacity")
    assert (weights_of(env, policy)[0] == np.float32(1 / 3)).all()


def test_most_confident_and_best_single_choose_by_their_rule():
    env, policy = env_and_policy("most_confident")
    weights, batch = weights_of(env, policy)
    top = batch.teacher_logits.softmax(2).amax(2)
    assert (weights.max(1) == 1.0).all()
    assert (top.gather(1, torch.from_numpy(weights.argmax(1))[:, None])[:, 0] >= top.amax(1) - 1e-6).all()
    env, policy = env_and_policy("best_single")
    weights, batch = weights_of(env, policy)
    right = batch.teacher_logits.softmax(2)[torch.arange(32), :, batch.labels]  # [B, K]
    assert (weights.argmax(1) == right.argmax(1).numpy()).all()


def test_a_single_teacher_by_index_and_by_name():
    for name in ("single:2", "single:mirrored", "single(teacher=2)", "single(teacher=mirrored)"):
        env, policy = env_and_policy(name)
        weights, _ = weights_of(env, policy)
        assert (weights == np.eye(4)[2]).all(), name
    env, policy = env_and_policy("single")
    assert (weights_of(env, policy)[0] == np.eye(4)[0]).all()


NOBODY = ["single:4", "single:-1", "single:nobody", "single:²", "single:1.0", "single(teacher=-1)", "single(teacher=1.0)"]


@pytest.mark.parametrize("name", NOBODY)
def test_a_single_teacher_that_is_not_there_is_refused(name):
    with pytest.raises(InputError, match=r"expected 0\.\.3 or one of upright, inverted, mirrored, transposed"):
        env_and_policy(name)


def test_a_random_teacher_for_each_mini_batch_follows_the_seed_alone():
    drawn = {}
    for seed in (0, 0, 1):
        env, policy = env_and_policy("random_single", seed=seed)
        observation, _ = env.reset(seed=5)
        chosen = [policy.act(observation) for _ in range(200)]
        assert all(len(set(teachers.tolist())) == 1 for teachers in chosen), "one teacher per mini-batch"
        firsts = [int(teachers[0]) for teachers in chosen]
        assert drawn.setdefault(seed, firsts) == firsts
    assert drawn[0] != drawn[1]
    assert min(np.bincount(drawn[0], minlength=4)) > 25, "evenly"


def test_the_oracle_follows_the_groups():
    env, policy = env_and_policy("oracle")
    weights, batch = weights_of(env, policy)
    groups = tasks.load("digits").train.groups[batch.example_ids]
    assert set(groups) == {0, 1, 2, 3}
    assert (weights.argmax(1) == groups).all()
    reordered = "digits/experts/transposed,digits/experts/upright,digits/experts/mirrored,digits/experts/inverted"
    env, policy = env_and_policy("oracle", reordered)
    weights, batch = weights_of(env, policy)
    groups = tasks.load("digits").train.groups[batch.example_ids]
    assert (weights.argmax(1) == np.array([1, 3, 2, 0])[groups]).all()


@pytest.mark.long
def test_the_oracle_knows_the_best_teacher_of_a_class():
    env, policy = env_and_policy("oracle", "digits/complementary")
    weights, batch = weights_of(env, policy)
    known = np.array([0, 0, 0, 1, 1, 2, 2, 2, 3, 3])
    assert (weights.argmax(1) == known[batch.labels]).all()


def test_the_oracle_follows_teachers_that_change_during_a_run():
    env, policy = env_and_policy("oracle", "digits/drift", updates=4)
    observation, _ = env.reset(seed=0)
    groups = tasks.load("digits").train.groups
    for update in range(4):
        batch = env.selection.distillation.observe()
        chosen = decided(policy).argmax(1).numpy()
        assert (chosen == (groups[batch.example_ids] - (update >= 2)) % 4).all()
        right = batch.teacher_logits.argmax(2)[torch.arange(len(chosen)), torch.from_numpy(chosen)] == batch.labels
        assert float(right.float().mean()) > 0.9
        env.step(policy.act(observation))


@pytest.mark.parametrize("teachers", ["digits/capacity", "digits/experts/upright,digits/experts/inverted"])
def test_the_oracle_is_refused_where_the_best_teachers_are_not_known(teachers):
    with pytest.raises(
        InputError, match=r"policy 'oracle': the best teachers of pool .* are not known; use another pool, or leave this policy out"
    ):
        env_and_policy("oracle", teachers)


def test_no_teacher_needs_labels_in_the_setting():
    with pytest.raises(InputError, match=r"'no_teacher' learns from hard labels, which this setting does not use \(kd_weight=1\)"):
        _ = Trial("digits", "no_teacher", 0).resolved
    assert Trial("digits", "no_teacher", 0, settings={"kd_weight": 0.5}).resolved.settings.distillation.kd_weight == 0.0
    env, policy = env_and_policy("no_teacher")
    weights, _ = weights_of(env, policy)
    assert (weights == 0).all()
    assert env.selection.settings.distillation.kd_weight == 0.0


@pytest.mark.parametrize("name", ["camkd", "router", "self_stacking"])
def test_a_rule_that_needs_two_teachers_says_so(name):
    with pytest.raises(InputError, match=r"needs at least 2 teachers, pool .* has 1"):
        env_and_policy(name, "digits/experts/upright")


@pytest.mark.usefixtures("fit_stacks_once")
@pytest.mark.parametrize("name", RULES)
def test_every_rule_gives_legal_actions_and_one_student_a_seed(name, tmp_path):
    env, policy = env_and_policy(name, reward_labels=64)
    assert isinstance(policy, RulePolicy)
    observation, _ = env.reset(seed=0)
    for _ in range(3):
        action = policy.act(observation)
        if isinstance(action, Decision):  # ``step`` checks those; weights are to be on the simplex
            for weights in action.weights.values():
                assert (weights >= 0.0).all(), name
                assert weights.sum(1).tolist() == pytest.approx([1.0] * 32, abs=1e-5), name
        else:
            assert env.action_space.contains(action.astype(env.action_space.dtype)), name
        observation, *_ = env.step(action)
    settings = {"updates": 5, "reward_labels": 64} | ({"kd_weight": 0.5} if name == "no_teacher" else {})
    first, second = (run_trial(Trial("digits", name, 3, settings=settings), tmp_path)["reward_sum"] for _ in range(2))
    assert first == second


# the reward labels


class Silent:
    """A teacher with uniform outputs, or, with ``seed``, with random ones."""

    def __init__(self, name, seed=None):
        self.name, self.seed = name, seed

    def fingerprint(self):
        return f"silent{self.seed}"

    def __call__(self, inputs):
        shape = (len(inputs), 10)
        logits = torch.zeros(shape) if self.seed is None else 9 * torch.from_numpy(np.random.default_rng(self.seed).normal(size=shape))
        return ModelOutput(logits.float(), torch.zeros(len(inputs), 1))


def nonsense(task):
    return Pool("nonsense", (Silent("one", 1), Silent("two", 2)))


def silence(task):
    return Pool("silence", (Silent("one"), Silent("two")))


def taught(name, pool, tmp_path, **settings):
    return run_trial(Trial("digits", name, 0, f"{__name__}:{pool}", settings={"updates": 40, **settings}), tmp_path)


@pytest.mark.long
def test_reward_supervised_ignores_teachers(tmp_path):
    record, other = (taught("reward_supervised", pool, tmp_path) for pool in ("nonsense", "silence"))
    assert record["test"] == other["test"]
    assert record["curve"] == other["curve"]
    assert record["selection_rate"] == [0.0, 0.0]
    assert record["test"] > 0.15, "it learns something from the reward labels"
    assert record["curve"] != taught("reward_supervised", "nonsense", tmp_path, reward_labels=64)["curve"]


@pytest.mark.long
def test_uniform_reward_ce_hears_both_teachers_and_reward_labels(tmp_path):
    record, other = (taught("uniform_reward_ce", pool, tmp_path) for pool in ("nonsense", "silence"))
    assert record["curve"] != other["curve"]
    plain, quiet = (taught("uniform", pool, tmp_path) for pool in ("nonsense", "silence"))
    assert plain["curve"] != record["curve"]
    assert other["test"] > quiet["test"], "with uninformative teachers the labels are what is left"
