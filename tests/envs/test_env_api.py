"""One step is one mini-batch: what Gymnasium asks of an environment, for every legal setting."""

import dataclasses
import itertools
import json
import typing
import warnings

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils.env_checker import check_env, data_equivalence
from gymnasium.wrappers import FlattenObservation, RecordEpisodeStatistics, TimeLimit
from stable_baselines3.common.env_checker import check_env as check_env_for_sb3
from torch.nn.functional import cross_entropy

from kd_env import settings
from kd_env.envs import actions, credit
from kd_env.envs.registration import ENVIRONMENTS
from kd_env.envs.selection import DIVERGED_REWARD
from kd_env.errors import InputError
from kd_env.teachers import Pool, load_pool

TEACHERS = "kd_env/TeacherSelection-v0"
CHOICES = [typing.get_args(kind) for kind in (settings.Action, settings.Granularity)]
PAID = list(itertools.product(*(typing.get_args(kind) for kind in (settings.Reward, settings.Credit))))
LEGAL = [(reward, given) for reward, given in PAID if given == "shared" or reward == "dev_improvement"]


def make(name=TEACHERS, **keywords):
    return gym.make(name, **{"batch_size": 3, "updates": 4, "student": "mlp(width=8)", "reward_examples": 20} | keywords)


def weights_of(env):
    return torch.cat([parameter.detach().flatten() for parameter in env.unwrapped.distillation.student.network.parameters()])


def rollout(env, seed, action_seed=0):
    """Everything an agent sees in one episode."""
    env.action_space.seed(action_seed)
    seen, done = [env.reset(seed=seed)], False
    while not done:
        seen.append(env.step(env.action_space.sample()))
        done = seen[-1][2] or seen[-1][3]
    return seen


def same(one, two):
    """Equal to the last bit, whatever is nested in it."""
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(same(one[name], two[name]) for name in one)
    if isinstance(one, list | tuple):
        return len(one) == len(two) and all(map(same, one, two))
    return np.array_equal(one, two)


@pytest.mark.parametrize("name", ENVIRONMENTS)
@pytest.mark.parametrize(("action", "granularity"), list(itertools.product(*CHOICES)))
@pytest.mark.parametrize(("reward", "given"), LEGAL)
def test_both_checkers_pass_without_a_warning(name, action, granularity, reward, given):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env = make(name, action=action, granularity=granularity, reward=reward, credit=given, batch_size=2, updates=3)
        check_env(env.unwrapped)
        check_env_for_sb3(env.unwrapped)


@pytest.mark.parametrize(("features", "labels"), [("summary", False), ("summary", True), ("full", True)])
def test_both_checkers_pass_for_every_observation(features, labels):
    env = make(features=features, observe_labels=labels)
    check_env(env.unwrapped)
    check_env_for_sb3(env.unwrapped)


@pytest.mark.parametrize(("reward", "given"), sorted(set(PAID) - set(LEGAL)))
def test_credit_without_dev_improvement_is_refused(reward, given):
    with pytest.raises(InputError, match="goes with credit=shared"):
        make(reward=reward, credit=given)


@pytest.mark.parametrize(
    ("keywords", "says"),
    [
        ({"task": "digit"}, "did you mean 'digits'"),
        ({"task": 3}, "task=3"),
        ({"teachers": "digits/expert"}, "did you mean 'digits/experts'"),
        ({"teachers": "digits/experts/uprigt"}, "did you mean 'upright'"),
        ({"teachers": "domains/experts"}, "made for another task"),
        ({"teachers": ()}, "has no teachers"),
        ({"studnet": "mlp"}, "did you mean 'student'"),
        ({"student": "tiny-bert"}, "reads text"),
        ({"optimizer": "adam(lr=0)"}, "lr is above 0"),
        ({"batch_size": 10**6}, "more than the 3588"),
        ({"device": "tpu"}, "device='tpu'"),
    ],
)
def test_what_cannot_be_made_is_said(keywords, says):
    with pytest.raises(InputError, match=says):
        make(**keywords)


@pytest.mark.parametrize("action", CHOICES[0])
@pytest.mark.parametrize("keywords", [{}, {"credit": "first_order", "student": "mlp(dropout=0.3)"}, {"reward": "mixed"}])
def test_equal_seeds_give_equal_rollouts_and_others_do_not(action, keywords):
    one, two = make(action=action, **keywords), make(action=action, **keywords)
    first = rollout(one, seed=7)
    rollout(two, seed=1)  # what went before does not matter
    assert same(first, rollout(two, seed=7))
    assert torch.equal(weights_of(one), weights_of(two))
    assert not same(first, rollout(two, seed=8))
    assert not same(first, rollout(two, seed=7, action_seed=1))


def test_resets_without_a_seed_follow_from_the_last_one():
    one, two = make(), make()
    for env in (one, two):
        env.reset(seed=3)
    first, second = one.reset(), one.reset()
    assert same(first, two.reset())
    assert same(second, two.reset())
    assert not same(first, second)


@pytest.mark.parametrize("action", CHOICES[0])
@pytest.mark.parametrize("granularity", CHOICES[1])
def test_the_action_means_the_weights_the_student_is_taught_with(action, granularity):
    env = make(action=action, granularity=granularity)
    env.reset(seed=0)
    chosen, steps = env.action_space.sample(), []
    env.unwrapped.selection.listeners.append(steps.append)
    env.step(chosen)
    rows = 3 if granularity == "instance" else 1
    expected = np.broadcast_to(actions.to_weights(action, chosen, 4, rows), (3, 4))
    assert np.array_equal(steps[0].weights, expected)


@pytest.mark.parametrize("action", CHOICES[0])
@pytest.mark.parametrize("given", ["shared", "first_order"])
def test_one_decision_for_the_batch_is_that_decision_for_every_instance(action, given):
    batch, instance = make(action=action, granularity="batch", credit=given), make(action=action, credit=given)
    seen, seen_each = batch.reset(seed=5)[0], instance.reset(seed=5)[0]
    for _ in range(4):
        for name, block in seen.items():
            np.testing.assert_allclose(block, seen_each[name].reshape(3, -1).mean(0), atol=1e-6)
        decision = batch.action_space.sample()
        seen, reward, *_, info = batch.step(decision)
        seen_each, reward_each, *_, info_each = instance.step(np.tile(np.atleast_1d(decision), 3))
        assert reward == pytest.approx(reward_each, abs=1e-12)
        if given != "shared":
            assert info["credit"].shape == (1, 4)
            np.testing.assert_allclose(info["credit"], info_each["credit"].mean(0, keepdims=True), atol=1e-12)
    assert torch.equal(weights_of(batch), weights_of(instance))


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("given", ["head", "first_order"])
def test_credit_is_paid_as_weighted(given, normalize):
    env = make(credit=given, normalize_credit=normalize, precision="float64", strength=0.5)
    env.reset(seed=0)
    raw = credit.CREDITS[given](env.unwrapped.distillation.fork())
    subset = np.array([1, 0, 0, 1, 0, 0, 0, 0, 0, 1, 0, 0])
    *_, reward, _, _, info = env.step(subset)
    np.testing.assert_allclose(info["credit"], credit.normalize(raw) if normalize else raw, rtol=1e-9)
    c = info["credit"]
    assert reward == pytest.approx(((c[0, 0] + c[0, 3]) / 2 + 0.0 + c[2, 1]) / 3, rel=1e-6)


def test_rewards_of_an_episode_telescope():
    env = make(updates=15, strength=0.0, optimizer="adam(lr=0.02)", reward_labels=50, reward_examples=64)
    env.reset(seed=0)
    losses = []
    run = env.unwrapped.distillation
    images, labels = (source[run.reward_rows] for source in (run.material.inputs["reward"]["pixel_values"], run.material.labels["reward"]))
    losses.append(float(cross_entropy(run.student.predict({"pixel_values": images}), labels)))
    rewards, terminated = [], False
    while not terminated:
        *_, reward, terminated, _, _ = env.step(env.action_space.sample())
        rewards.append(reward)
    losses.append(float(cross_entropy(run.student.predict({"pixel_values": images}), labels)))
    assert len(rewards) == 15
    assert sum(rewards) == pytest.approx(losses[0] - losses[1], abs=1e-6)
    assert abs(losses[0] - losses[1]) > 0.01


@pytest.mark.parametrize("reward", ["student_loss", "student_and_distillation_loss", "mixed"])
def test_rl_kd_s_rewards_look_at_the_mini_batch_after_its_update(reward):
    env = make(
        reward=reward, precision="float64", temperature=3.0, reward_labels=30, reward_examples=30, reward_mix=0.25, observe_labels=True
    )
    env.reset(seed=0)
    features = env.unwrapped.distillation.observe()
    subset = np.array([1, 0, 0, 1, 0, 0, 0, 0, 0, 1, 0, 0])
    *_, paid, _, _, info = env.step(subset)
    run = env.unwrapped.distillation
    logits = run.student.predict({"pixel_values": run.material.inputs["train"]["pixel_values"][features.example_ids]})
    ce = float(cross_entropy(logits, features.labels))
    q, p = (logits / 3).softmax(1)[:, None], (features.teacher_logits / 3).softmax(2)
    kl = 9 * (p * (p / q).log()).sum(2)
    distillation = float((kl[0, 0] + kl[0, 3]) / 2 + kl[2, 1]) / 3
    images, labels = run.meter.inputs["pixel_values"], run.meter.labels
    accuracy = float((run.student.predict({"pixel_values": images}).argmax(1) == labels).double().mean())
    expected = {
        "student_loss": -ce,
        "student_and_distillation_loss": -ce - distillation,
        "mixed": 0.25 * (-ce - distillation) + 0.75 * accuracy,
    }[reward]
    assert paid == pytest.approx(expected, rel=1e-6)
    assert info["reward_terms"]["student_ce"].mean() == pytest.approx(float(cross_entropy(features.student.logits, features.labels)))


@pytest.mark.parametrize(("reward", "given"), LEGAL)
def test_divergence_terminates_with_a_finite_penalty_and_a_clipped_observation(reward, given):
    env = make(optimizer="sgd(lr=1e30)", updates=20, reward=reward, credit=given)
    env.reset(seed=0)
    rewards, terminated = [], False
    while not terminated:
        seen, paid, terminated, truncated, info = env.step(np.ones(12, dtype=np.int8))
        rewards.append(paid)
        assert np.isfinite(paid)
        assert not truncated
        assert env.observation_space.contains(seen)
        assert np.isfinite(info.get("credit", 0.0)).all()
        assert np.isfinite(info["reward_terms"].get("improvement", 0.0))
    assert DIVERGED_REWARD == -10.0
    assert rewards[-1] == -10.0
    assert len(rewards) < 5
    assert info["diverged"]
    assert "validation" not in info
    assert env.unwrapped.finished.diverged
    env.reset(seed=1)
    assert not env.unwrapped.distillation.done, "the next student begins afresh"
    assert weights_of(env).isfinite().all()


def test_the_last_student_is_kept_over_resets():
    env = make()
    assert env.unwrapped.finished is None
    rollout(env, seed=0)
    finished, weights = env.unwrapped.finished, weights_of(env)
    assert finished is env.unwrapped.distillation
    env.reset(seed=1)
    env.step(env.action_space.sample())
    assert env.unwrapped.finished is finished
    assert torch.equal(torch.cat([p.detach().flatten() for p in finished.student.network.parameters()]), weights)


def test_after_the_end_reset_is_asked_for():
    env = make().unwrapped
    rollout(env, seed=0)
    with pytest.raises(InputError, match=r"call reset\(\) first"):
        env.step(env.action_space.sample())


def test_info_says_what_the_docstring_says():
    env = make(updates=40, credit="head", reward_every=2)
    env.reset(seed=0)
    train, validated = env.unwrapped.distillation.material.labels["train"], []
    for update in range(1, 41):
        due = env.unwrapped.distillation.observe().example_ids
        *_, info = env.step(env.action_space.sample())
        assert np.array_equal(info["example_ids"], due)
        assert len(train) > info["example_ids"].max()
        assert info["credit"].shape == (3, 4)
        assert info["diverged"] is False
        if "validation" in info:
            validated.append(update)
    assert validated == list(range(2, 41, 2)), "a twentieth of the budget"
    assert info["validation"] == env.unwrapped.distillation.validate()[1]


def test_snapshot_and_fork_of_an_environment():
    env = make(student="mlp(dropout=0.3)")
    env.reset(seed=0)
    env.step(env.action_space.sample())
    state, twin = env.unwrapped.snapshot(), env.unwrapped.fork()
    chosen = [env.action_space.sample() for _ in range(3)]
    seen = [env.step(action) for action in chosen]
    assert same(seen, [twin.step(action) for action in chosen])
    other = make(student="mlp(dropout=0.3)")
    other.reset(seed=5)
    assert same(other.unwrapped.restore(state), env.unwrapped.restore(state))
    assert same(seen, [other.step(action) for action in chosen])


def test_a_fork_draws_its_own_seeds_and_actions():
    env, alone = make().unwrapped, make().unwrapped
    for one in (env, alone):
        one.reset(seed=0)
        one.action_space.seed(0)
    twin = env.fork()
    twin.reset()
    twin.action_space.sample()
    assert np.array_equal(env.action_space.sample(), alone.action_space.sample())
    assert same(env.reset(), alone.reset())
    assert twin.distillation is not env.distillation


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_the_spec_survives_json(name):
    env = make(name, action="one", credit="head", max_episode_steps=3)
    text = env.spec.to_json()
    again = gym.make(EnvSpec.from_json(text))
    assert json.loads(again.spec.to_json()) == json.loads(text)
    assert again.observation_space == env.observation_space
    assert again.action_space == env.action_space
    assert again.unwrapped.selection.settings == env.unwrapped.selection.settings
    assert same(rollout(env, seed=2), rollout(again, seed=2))


def test_common_wrappers():
    env = RecordEpisodeStatistics(FlattenObservation(TimeLimit(make(updates=10), 4)))
    seen = rollout(env, seed=0)
    assert len(seen) == 1 + 4
    assert all(env.observation_space.contains(step[0]) for step in seen)
    blocks = make().unwrapped.reset(seed=0)[0]
    assert np.array_equal(seen[0][0], np.concatenate([blocks[name] for name in env.unwrapped.observation_space]))
    *_, terminated, truncated, info = seen[-1]
    assert (terminated, truncated) == (False, True)
    assert info["episode"]["l"] == 4
    assert info["episode"]["r"] == pytest.approx(sum(step[1] for step in seen[1:]))


def test_the_test_split_is_out_of_reach():
    run = make().unwrapped.distillation
    assert run.material.task.test is None
    assert set(run.material.inputs) == set(run.material.labels) == {"train", "reward", "validation"}


def test_what_is_shown_and_paid_does_not_depend_on_training_labels_or_groups(digits_material):
    task = digits_material.task
    rng = np.random.default_rng(0)
    blind = dataclasses.replace(task.train, labels=rng.permutation(task.train.labels), groups=rng.permutation(task.train.groups))
    shown = []
    for one in (task, dataclasses.replace(task, train=blind)):
        teachers = load_pool("digits/experts", task).teachers  # the same teachers, whatever the labels
        env = gym.make(
            "kd_env/TeacherSelection-v0", task=one, teachers=Pool("same", teachers), updates=4, batch_size=8, credit="first_order"
        )
        env.action_space.seed(0)
        steps = [env.reset(seed=0), *(env.step(env.action_space.sample()) for _ in range(4))]
        shown.append([(step[0], step[1] if len(step) == 5 else 0.0, _without(step[-1], "validation")) for step in steps])
    assert data_equivalence(*shown)


def test_row_numbers_tell_neither_label_nor_group(digits_material):
    train = digits_material.task.train
    rows = np.arange(len(train))
    for hidden, classes in ((train.labels, 10), (train.groups, 4)):
        for modulus in (4, 10, 40):
            guess = np.array([np.bincount(hidden[rows % modulus == rest], minlength=classes).argmax() for rest in range(modulus)])
            assert (guess[rows % modulus] == hidden).mean() < 1 / classes + 0.1


def _without(info, name):
    return {key: value for key, value in info.items() if key != name}
