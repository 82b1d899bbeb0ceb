"""One step is one mini-batch: what Gymnasium asks of an environment, for every legal setting."""

import dataclasses
import itertools
import json
import warnings

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils.env_checker import check_env, data_equivalence
from playing import (
    CLASSES,
    CREDITS,
    JOINT,
    KINDS,
    KNOWLEDGE,
    PAID,
    REWARDS,
    TEACHERS,
    batch,
    granularities,
    heard,
    rollout,
    same,
    slots,
    weights_of,
)
from stable_baselines3.common.env_checker import check_env as check_env_for_sb3
from torch.nn.functional import cross_entropy

from kd_env.envs import actions, credit
from kd_env.envs.observations import COLUMNS
from kd_env.envs.selection import DIVERGED_REWARD
from kd_env.errors import InputError
from kd_env.teachers import Pool, load_pool

TWO = "digits/experts/upright,digits/experts/inverted"
ACTIONS = sorted({action for _, action in KINDS})
EVERY = [(name, action, granularity) for name, action in KINDS for granularity in granularities(action)]
"""All that an environment can be asked to decide."""


@pytest.mark.parametrize(("name", "action", "granularity"), EVERY)
@pytest.mark.parametrize(("reward", "given"), PAID)
def test_both_checkers_pass_without_a_warning(name, action, granularity, reward, given):
    exact = {"reward_examples": 8, "student": "mlp(width=4)"} if given == "counterfactual" else {}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env = batch(name, teachers=TWO, action=action, granularity=granularity, reward=reward, credit=given, **{"updates": 3, **exact})
        check_env(env.unwrapped, skip_render_check=(reward, given) != PAID[0])
        check_env_for_sb3(env.unwrapped)


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize(("features", "labels"), list(itertools.product(COLUMNS, [False, True])))
def test_both_checkers_pass_for_every_observation(name, features, labels):
    env = batch(name, observation=features, observe_labels=labels)
    check_env(env.unwrapped, skip_render_check=True)
    check_env_for_sb3(env.unwrapped)


@pytest.mark.parametrize("extra", [{"teacher_cost": 0.1}, {"updates_per_phase": 2}, {"exploration_bonus": 0.5}, {"kd_weight": 1.0}])
@pytest.mark.parametrize("action", CLASSES[KNOWLEDGE].action_kinds)
def test_both_checkers_pass_with_what_knowledge_selection_has(action, extra):
    env = batch(KNOWLEDGE, action=action, **extra)
    check_env(env.unwrapped, skip_render_check=True)
    check_env_for_sb3(env.unwrapped)


@pytest.mark.parametrize("name", CLASSES)
def test_every_other_combination_is_refused(name, digits_data):
    """Of actions, granularities, rewards and credits; counted, so that none is forgotten."""
    task, says, legal = digits_data.task, "this environment has|leave granularity out|goes with credit=shared", 0
    for action, granularity, (reward, given) in itertools.product(ACTIONS, ["instance", "batch"], itertools.product(REWARDS, CREDITS)):
        if (name, action, granularity) in EVERY and (reward, given) in PAID:
            legal += 1
            continue
        options = {"task": task, "action": action, "granularity": granularity, "reward": reward, "credit": given}
        with pytest.raises(InputError, match=says):
            batch(name, **options)
        with pytest.raises(InputError, match=says):
            slots(1, name, **options)
    assert legal == len(PAID) * {TEACHERS: 6, KNOWLEDGE: 2, JOINT: 2}[name]


@pytest.mark.parametrize(("reward", "given"), sorted(set(itertools.product(REWARDS, CREDITS)) - set(PAID)))
def test_credit_without_dev_improvement_is_refused(reward, given):
    with pytest.raises(InputError, match="goes with credit=shared"):
        batch(reward=reward, credit=given)


@pytest.mark.parametrize(
    ("name", "keywords", "says"),
    [
        (TEACHERS, {"action": "soft"}, "this environment has subset and one and weights"),
        (JOINT, {"action": "subset"}, "action='subset': this environment has joint"),
        (KNOWLEDGE, {"granularity": "instance"}, "knowledge is selected for a batch or a phase; leave granularity out"),
        (TEACHERS, {"exploration_bonus": 0.1}, "exploration_bonus=0.1: it is paid for knowledge selection alone"),
        (JOINT, {"updates_per_phase": 2}, "a phase is taught by one decision; give granularity=batch"),
        (JOINT, {"factors": "teachers,temperature_scale"}, "unknown factor 'temperature_scale'"),
        (JOINT, {"num_students": 2}, "num_students=2: gymnasium.make steps one student; make_vec steps a population"),
        (KNOWLEDGE, {"knowledge": "response,attention"}, "teacher 'upright' has no attention"),
        (KNOWLEDGE, {"knowledge": "response,label"}, "leave out label; the hard label is always part of the loss"),
        (TEACHERS, {"render_mode": "human"}, "render_mode='human': expected rgb_array or ansi"),
    ],
)
def test_what_no_environment_has_is_refused(name, keywords, says):
    with pytest.raises(InputError, match=says):
        CLASSES[name](**keywords)


@pytest.mark.parametrize(
    ("kind", "num_teachers", "size"),
    [("image", 1, 1), ("image", 3, 256), ("image", 16, 5), ("text", 1, 256), ("text", 16, 1), ("text", 5, 5)],
)
def test_every_observation_is_in_its_space(of_kind, kind, num_teachers, size):
    """Of tasks of both kinds, any number of teachers and instances, in all three sets, labels shown and not, in both forms."""
    made = {**of_kind(kind, num_teachers), "student": {"image": "mlp(width=4)", "text": "tiny-bert(width=4,layers=1)"}[kind], "updates": 2}
    for features, labels, granularity in itertools.product(COLUMNS, [False, True], ["instance", "batch"]):
        shown = {**made, "observation": features, "observe_labels": labels, "granularity": granularity}
        one, many = batch(batch_size=size, **shown), slots(size if granularity == "instance" else 1, batch_size=size, **shown)
        for env in (one, many):
            first, last = env.reset(seed=0)[0], env.step(np.zeros(env.action_space.shape, dtype=np.int8))[0]
            for seen in (first, last):
                assert set(seen) == set(COLUMNS[features]) == set(env.observation_space)
                assert env.observation_space.contains(seen)
                for name, block in seen.items():
                    assert block.dtype == np.float32 == env.observation_space[name].dtype
                    assert np.isfinite(block).all()
                    assert block.ndim == (1 if env is one else 2)
        for name, box in many.single_observation_space.items():
            assert (box.low == -10.0).all()
            assert (box.high == 10.0).all()
            assert one.observation_space[name].shape == (many.num_envs * box.shape[0],)


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
        ({"optimizer": "adam(lr=0)"}, "expected a number above 0"),
        ({"batch_size": 10**6}, "more than the 3588"),
        ({"device": "tpu"}, "device='tpu'"),
    ],
)
def test_what_cannot_be_made_is_said(keywords, says):
    with pytest.raises(InputError, match=says):
        batch(**keywords)


@pytest.mark.parametrize(("name", "action"), KINDS)
@pytest.mark.parametrize("keywords", [{}, {"credit": "first_order", "student": "mlp(dropout=0.3)"}, {"reward": "mixed"}])
def test_equal_seeds_give_equal_rollouts_and_others_do_not(name, action, keywords):
    one, two = batch(name, action=action, **keywords), batch(name, action=action, **keywords)
    first = rollout(one, seed=7)
    rollout(two, seed=1)  # what went before does not matter
    assert same(first, rollout(two, seed=7))
    assert torch.equal(weights_of(one), weights_of(two))
    assert not same(first, rollout(two, seed=8))
    assert not same(first, rollout(two, seed=7, action_seed=1))


def test_resets_without_a_seed_follow_from_the_last_one():
    one, two = batch(), batch()
    for env in (one, two):
        env.reset(seed=3)
    first, second = one.reset(), one.reset()
    assert same(first, two.reset())
    assert same(second, two.reset())
    assert not same(first, second)


@pytest.mark.parametrize(("name", "action", "granularity"), EVERY)
def test_the_action_means_what_the_student_is_taught_with(name, action, granularity):
    env = batch(name, action=action, granularity=granularity)
    env.reset(seed=0)
    chosen, steps = env.action_space.sample(), heard(env)
    env.step(chosen)
    rows = 3 if granularity == "instance" else 1
    expected = actions.decode(action, chosen, env.unwrapped.selection.layout, rows)
    assert np.array_equal(steps[0].weights, np.broadcast_to(expected.weights, (3, 4)))
    assert same(steps[0].choice, expected)
    assert (steps[0].choice.gates is None) == (name == TEACHERS)


@pytest.mark.parametrize(("name", "action"), [one for one in KINDS if one[0] != KNOWLEDGE])
@pytest.mark.parametrize("given", ["shared", "first_order"])
def test_one_decision_for_the_batch_is_that_decision_for_every_instance(name, action, given):
    options = {"action": action, "credit": given, "precision": "float64", "normalize_credit": name == TEACHERS}
    whole, instance = batch(name, granularity="batch", **options), batch(name, **options)
    seen, seen_each = whole.reset(seed=5)[0], instance.reset(seed=5)[0]
    for _ in range(4):
        for block_name, block in seen.items():
            np.testing.assert_allclose(block, seen_each[block_name].reshape(3, -1).mean(0), atol=1e-6)
        decision = whole.action_space.sample()
        seen, reward, *_, info = whole.step(decision)
        seen_each, reward_each, *_, info_each = instance.step(np.tile(np.atleast_1d(decision), 3))
        assert reward == pytest.approx(reward_each, abs=1e-9)
        for one in ("credit", "knowledge_credit") if given != "shared" else ():
            assert (one in info) == (one in info_each) == (one == "credit" or name == JOINT)
            if one in info:
                assert len(info[one]) == 1
                np.testing.assert_allclose(info[one], info_each[one].mean(0, keepdims=True), atol=1e-9)
    torch.testing.assert_close(weights_of(whole), weights_of(instance), rtol=0, atol=1e-12)


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("given", ["head", "first_order", "counterfactual"])
def test_credit_is_paid_as_weighted(given, normalize):
    env = batch(credit=given, normalize_credit=normalize, precision="float64", kd_weight=0.5)
    env.reset(seed=0)
    raw = 0.5 * credit.CREDITS[given](env.unwrapped.distillation.fork(), ["response"])["response"]
    subset = np.array([1, 0, 0, 1, 0, 0, 0, 0, 0, 1, 0, 0])
    *_, reward, _, _, info = env.step(subset)
    np.testing.assert_allclose(info["credit"], credit.normalize(raw) if normalize else raw, rtol=1e-9)
    c = info["credit"]
    assert reward == pytest.approx(((c[0, 0] + c[0, 3]) / 2 + 0.0 + c[2, 1]) / 3, rel=1e-6)
    assert reward != 0.0


def test_rewards_of_an_episode_telescope():
    env = batch(updates=15, kd_weight=0.0, optimizer="adam(lr=0.02)", reward_labels=50, reward_examples=64)
    env.reset(seed=0)
    losses = []
    run = env.unwrapped.distillation
    (rows,) = run.meter.rows
    images, labels = (source[rows] for source in (run.data.inputs["reward"]["pixel_values"], run.data.labels["reward"]))
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
    env = batch(
        reward=reward, precision="float64", temperature=3.0, reward_labels=30, reward_examples=30, reward_mix=0.25, observe_labels=True
    )
    env.reset(seed=0)
    features = env.unwrapped.distillation.observe()
    subset = np.array([1, 0, 0, 1, 0, 0, 0, 0, 0, 1, 0, 0])
    *_, paid, _, _, info = env.step(subset)
    run = env.unwrapped.distillation
    logits = run.student.predict({"pixel_values": run.data.inputs["train"]["pixel_values"][features.example_ids]})
    ce = float(cross_entropy(logits, features.labels))
    q, p = (logits / 3).softmax(1)[:, None], (features.teacher_logits / 3).softmax(2)
    kl = 9 * (p * (p / q).log()).sum(2)
    distillation = float((kl[0, 0] + kl[0, 3]) / 2 + kl[2, 1]) / 3
    inputs, labels = run.meter.at(run.meter.rows[0], run.student.device)
    accuracy = float((run.student.predict(inputs).argmax(1) == labels).double().mean())
    expected = {
        "student_loss": -ce,
        "student_and_distillation_loss": -ce - distillation,
        "mixed": 0.25 * (-ce - distillation) + 0.75 * accuracy,
    }[reward]
    assert paid == pytest.approx(expected, rel=1e-6)
    assert info["reward_terms"]["student_ce"].mean() == pytest.approx(float(cross_entropy(features.student.logits, features.labels)))


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize(("reward", "given"), PAID)
def test_divergence_terminates_with_a_finite_penalty_and_a_clipped_observation(name, reward, given):
    env = batch(name, teachers=TWO, optimizer="sgd(lr=1e30)", updates=20, reward=reward, credit=given)
    env.reset(seed=0)
    everyone = np.ones(env.action_space.shape, dtype=env.action_space.dtype)
    if name == JOINT:
        everyone.reshape(3, -1)[:, -1] = -1.0  # nobody abstains
    rewards, terminated = [], False
    while not terminated:
        seen, paid, terminated, truncated, info = env.step(everyone)
        rewards.append(paid)
        assert np.isfinite(paid)
        assert not truncated
        assert env.observation_space.contains(seen)
        for one in ("credit", "knowledge_credit"):
            assert np.isfinite(info.get(one, 0.0)).all()
        assert np.isfinite(info["reward_terms"].get("improvement", 0.0))
    assert DIVERGED_REWARD == -10.0
    assert rewards[-1] == -10.0
    assert len(rewards) < 5
    assert info["diverged"] is True
    assert "validation" not in info
    assert env.unwrapped.finished.diverged.tolist() == [True]
    env.reset(seed=1)
    assert not env.unwrapped.distillation.done, "the next student begins afresh"
    assert weights_of(env).isfinite().all()


def test_the_last_student_is_kept_over_resets():
    env = batch()
    assert env.unwrapped.finished is None
    rollout(env, seed=0)
    finished, weights = env.unwrapped.finished, weights_of(env)
    assert finished is env.unwrapped.distillation
    env.reset(seed=1)
    env.step(env.action_space.sample())
    assert env.unwrapped.finished is finished
    assert torch.equal(torch.cat([p.detach().flatten() for p in finished.student.network.parameters()]), weights)


def test_after_the_end_reset_is_asked_for():
    env = batch().unwrapped
    rollout(env, seed=0)
    with pytest.raises(InputError, match=r"call reset\(\) first"):
        env.step(env.action_space.sample())


def test_info_says_what_the_docstring_says():
    env = batch(updates=40, credit="head", reward_every=2)
    env.reset(seed=0)
    train, validated = env.unwrapped.distillation.data.labels["train"], []
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
    assert info["validation"] == env.unwrapped.distillation.validate()[1][0]


@pytest.mark.parametrize(("name", "action"), KINDS)
@pytest.mark.parametrize("given", ["shared", "head"])
def test_snapshot_and_fork_of_an_environment(name, action, given):
    options = {"student": "mlp(dropout=0.3)", "action": action, "credit": given, "updates": 6}
    options |= {"exploration_bonus": 0.5, "updates_per_phase": 2} if name == KNOWLEDGE else {}
    env = batch(name, **options)
    env.reset(seed=0)
    env.step(env.action_space.sample())
    state, twin = env.unwrapped.snapshot(), env.unwrapped.fork()
    chosen = [env.action_space.sample() for _ in range(2)]
    seen = [env.step(action) for action in chosen]
    assert same(seen, [twin.step(action) for action in chosen])
    other = batch(name, **options)
    other.reset(seed=5)
    assert same(other.unwrapped.restore(state), env.unwrapped.restore(state))
    assert same(seen, [other.step(action) for action in chosen])
    assert torch.equal(weights_of(other), weights_of(twin))
    assert same(seen, [env.step(action) for action in chosen]), "the environment itself went back"


def test_a_fork_draws_its_own_seeds_and_actions():
    env, alone = batch().unwrapped, batch().unwrapped
    for one in (env, alone):
        one.reset(seed=0)
        one.action_space.seed(0)
    twin = env.fork()
    twin.reset()
    twin.action_space.sample()
    assert np.array_equal(env.action_space.sample(), alone.action_space.sample())
    assert same(env.reset(), alone.reset())
    assert twin.distillation is not env.distillation


SETTINGS = {
    TEACHERS: {"action": "one", "credit": "head", "observe_labels": True},
    KNOWLEDGE: {"action": "hard", "exploration_bonus": 0.3, "updates_per_phase": 2, "updates": 7},
    JOINT: {"factors": "teachers,abstain,kd_weight", "credit": "first_order", "teacher_cost": 0.1},
}


@pytest.mark.parametrize("name", CLASSES)
def test_the_spec_survives_json(name):
    env = batch(name, max_episode_steps=3, **SETTINGS[name])
    text = env.spec.to_json()
    again = gym.make(EnvSpec.from_json(text))
    assert json.loads(again.spec.to_json()) == json.loads(text)
    assert again.observation_space == env.observation_space
    assert again.action_space == env.action_space
    assert again.unwrapped.selection.settings == env.unwrapped.selection.settings
    seen = rollout(env, seed=2)
    assert same(seen, rollout(again, seed=2))
    assert len(seen) == 1 + 3


def test_the_test_split_is_out_of_reach():
    run = batch().unwrapped.distillation
    assert run.data.task.test is None
    assert set(run.data.inputs) == set(run.data.labels) == {"train", "reward", "validation"}


def test_what_is_shown_and_paid_does_not_depend_on_training_labels_or_groups(digits_data):
    task = digits_data.task
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


def test_row_numbers_tell_neither_label_nor_group(digits_data):
    train = digits_data.task.train
    rows = np.arange(len(train))
    for hidden, classes in ((train.labels, 10), (train.groups, 4)):
        for modulus in (4, 10, 40):
            guess = np.array([np.bincount(hidden[rows % modulus == rest], minlength=classes).argmax() for rest in range(modulus)])
            assert (guess[rows % modulus] == hidden).mean() < 1 / classes + 0.1


def _without(info, name):
    return {key: value for key, value in info.items() if key != name}
