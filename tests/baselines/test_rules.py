"""Rules against values worked out by hand, and what each of them may read."""

import math

import numpy as np
import pytest
import torch
from weighing import acted_weights, decided

from baselines import camkd
from baselines.gate import LOG_FLOOR, Gate, fit, gate_inputs
from baselines.most_confident import choose
from baselines.router import Router
from kd_env import tasks
from kd_env.benchmark.run_trial import make_env, run_trial
from kd_env.benchmark.trial import Trial
from kd_env.distillation.reward_split import labelled_rows
from kd_env.errors import InputError
from kd_env.policies import make_policy, registry
from kd_env.policies.rules import RulePolicy
from kd_env.teachers import Pool, load_pool
from kd_env.types import Decision, ModelOutput

RULES = [name for name, path in registry.POLICIES.items() if path.startswith("baselines.")]


def env_and_policy(name, teachers=None, seed=0, task="digits", **settings):
    if name == "no_teacher":
        settings.setdefault("kd_weight", 0.5)
    trial = Trial(task, name, seed, teachers, settings={"updates": 20, **settings})
    env = make_env(trial)
    return env, registry.find(name).build(env, seed)


def weights_of(env, policy, seed=0):
    """Teacher weights ``[B, K]`` for the first mini-batch of ``seed``, and that mini-batch."""
    env.reset(seed=seed)
    return acted_weights(env, policy), env.selection.distillation.observe()


def with_probability(p, classes=4):
    """Logits that give class 0 the probability ``p``."""
    return [math.log(p / (1 - p) * (classes - 1)), *[0.0] * (classes - 1)]


# camkd


def test_camkd_of_two_teachers_by_hand():
    logits = torch.tensor([[with_probability(0.8), with_probability(0.2)]], dtype=torch.float64)
    # exp(c_k) = 1/p_k, so softmax(c) = (1/.8, 1/.2) / (1/.8 + 1/.2) = (.2, .8); 1 - that, over K - 1 = 1
    assert camkd.weights(logits, torch.tensor([0]))[0].tolist() == pytest.approx([0.8, 0.2])


def test_camkd_of_three_teachers_by_hand():
    logits = torch.tensor([[with_probability(p) for p in (0.5, 0.25, 0.125)]], dtype=torch.float64)
    # 1/p = (2, 4, 8), softmax(c) = (1, 2, 4)/7, weights (6, 5, 3)/14
    assert camkd.weights(logits, torch.tensor([0]))[0].tolist() == pytest.approx([6 / 14, 5 / 14, 3 / 14])


@pytest.mark.parametrize("teachers", [2, 3, 7])
def test_camkd_is_on_the_simplex_and_follows_a_permutation(teachers):
    generator = torch.Generator().manual_seed(teachers)
    logits = 5 * torch.randn(50, teachers, 6, generator=generator, dtype=torch.float64)
    labels = torch.randint(6, (50,), generator=generator)
    weights = camkd.weights(logits, labels)
    assert weights.shape == (50, teachers)
    assert (weights >= 0).all()
    assert weights.max() <= 1 / (teachers - 1) + 1e-6
    assert weights.sum(1).tolist() == pytest.approx([1.0] * 50, abs=1e-5)
    order = torch.randperm(teachers, generator=generator)
    assert torch.allclose(camkd.weights(logits[:, order], labels), weights[:, order], atol=1e-6)
    assert (weights.argmax(1) == camkd.teacher_ce(logits, labels).argmin(1)).all()


def test_camkd_of_extreme_teachers_is_finite():
    logits = torch.tensor([[[1e4, 0.0], [-1e4, 0.0]]])
    assert camkd.weights(logits, torch.tensor([0]))[0].tolist() == [1.0, 0.0]


def test_camkd_needs_two_teachers():
    with pytest.raises(ValueError, match="camkd needs at least two teachers"):
        camkd.weights(torch.zeros(3, 1, 4), torch.zeros(3, dtype=torch.int64))


def test_camkd_acts_on_its_formula():
    env, policy = env_and_policy("camkd_logits")
    weights, batch = weights_of(env, policy)
    expected = camkd.weights(batch.teacher_logits, batch.labels)
    # the action cannot say less than exp(-20) of the largest weight
    assert weights == pytest.approx(expected.numpy(), abs=1e-6)


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
    with pytest.raises(InputError, match=r"policy 'oracle': the best teachers of pool .* are not known; leave this policy out"):
        env_and_policy("oracle", teachers)


def test_no_teacher_needs_labels_in_the_setting():
    with pytest.raises(InputError, match=r"'no_teacher' learns from hard labels, which are not part of this setting \(kd_weight=1\)"):
        _ = Trial("digits", "no_teacher", 0).resolved
    assert Trial("digits", "no_teacher", 0, settings={"kd_weight": 0.5}).resolved.settings.distillation.kd_weight == 0.0
    env, policy = env_and_policy("no_teacher")
    weights, _ = weights_of(env, policy)
    assert (weights == 0).all()
    assert env.selection.settings.distillation.kd_weight == 0.0


@pytest.mark.parametrize("name", ["camkd", "router"])
def test_a_rule_that_needs_two_teachers_says_so(name):
    with pytest.raises(InputError, match=r"needs at least 2 teachers, pool .* has 1"):
        env_and_policy(name, "digits/experts/upright")


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


def students(name, tmp_path, **settings):
    return [
        run_trial(Trial("digits", name, 0, f"{__name__}:{pool}", settings={"updates": 40, **settings}), tmp_path)
        for pool in ("nonsense", "silence")
    ]


def test_reward_supervised_ignores_teachers(tmp_path):
    record, other = students("reward_supervised", tmp_path)
    assert record["test"] == other["test"]
    assert record["curve"] == other["curve"]
    assert record["selection_rate"] == [0.0, 0.0]
    assert record["test"] > 0.15, "it learns something from the reward labels"
    more, fewer = (students("reward_supervised", tmp_path, reward_labels=labels)[0] for labels in (0, 64))
    assert more["curve"] != fewer["curve"]


def test_uniform_reward_ce_hears_both_teachers_and_reward_labels(tmp_path):
    record, other = students("uniform_reward_ce", tmp_path)
    assert record["curve"] != other["curve"]
    plain, _ = students("uniform", tmp_path)
    assert plain["curve"] != record["curve"]
    assert other["test"] > students("uniform", tmp_path)[1]["test"], "with uninformative teachers the labels are what is left"


def router_of(reward_labels=256, seed=0):
    env, _ = env_and_policy("uniform", reward_labels=reward_labels, seed=seed)
    return env, make_policy(Router, env, seed)


def poison(env, keep):
    """Make every reward label wrong but those of ``keep``."""
    labels = env.selection.data.labels
    wrong = np.setdiff1d(np.arange(len(labels["reward"])), keep)
    labels["reward"] = labels["reward"].clone()
    labels["reward"][wrong] = (labels["reward"][wrong] + 1) % 10


def equal(*policies):
    gates = (policy.rule.gate.state_dict().values() for policy in policies)
    return all(torch.equal(a, b) for a, b in zip(*gates, strict=True))


def test_the_router_is_mostly_right_with_256_labels():
    env, router = router_of()
    task, experts = tasks.load("digits"), load_pool("digits/experts", tasks.load("digits"))
    right = by_group = 0
    for update in range(20):
        env.reset(seed=update)
        batch = env.selection.distillation.observe()
        chosen = decided(router).argmax(1)
        answers = batch.teacher_logits.argmax(2)[torch.arange(32), chosen]
        right += float((answers == batch.labels).float().mean()) / 20
        by_group += float((chosen.numpy() == np.array(experts.best_for_group)[task.train.groups[batch.example_ids]]).mean()) / 20
    assert right > 0.8
    assert by_group > 0.7


def test_the_router_reads_no_label_that_its_run_does_not_have(monkeypatch):
    env, honest = router_of()
    env.reset(seed=0)
    labelled = env.selection.distillation.reward_split.rows[0]
    assert len(labelled) == 256
    # drawn by class, so poison would move it
    monkeypatch.setattr("kd_env.policies.context.labelled_rows", lambda labels, count, seed: labelled)
    poison(env, keep=labelled)
    assert equal(make_policy(Router, env, 0), honest)
    poison(env, keep=labelled[1:])
    assert not equal(make_policy(Router, env, 0), honest)


def test_the_router_has_the_labels_that_its_run_has():
    for seed in (0, 3):
        env, _ = env_and_policy("uniform", reward_labels=64, seed=seed)
        env.reset(seed=seed)
        drawn = labelled_rows(env.selection.data.labels["reward"].numpy(), 64, seed)
        assert (env.selection.distillation.reward_split.rows == drawn).all()
        assert (make_policy(Router, env, seed).context.reward_rows == drawn).all()


def test_the_router_is_the_same_for_a_seed():
    assert equal(router_of(reward_labels=64)[1], router_of(reward_labels=64)[1])
    assert not equal(router_of(reward_labels=64)[1], router_of(reward_labels=64, seed=1)[1])


def test_router_without_features_reads_the_outputs_alone():
    env, _ = env_and_policy("uniform", reward_labels=64)
    assert make_policy(Router, env, 0, teacher_features=False).rule.gate.mean.shape == (40,)
    assert make_policy(Router, env, 0).rule.gate.mean.shape == (40 + sum(env.selection.data.bank.widths),)


def test_a_gate_learns_who_is_right():
    """Teacher 0 is right where it is sure of class 0, else teacher 1 is."""
    generator = torch.Generator().manual_seed(0)
    sure = torch.rand(200, generator=generator) < 0.5
    logits = torch.randn(200, 2, 3, generator=generator)
    logits[sure, 0, 0] += 6.0
    inputs = gate_inputs(logits)
    right = torch.stack([sure.float(), 1 - sure.float()], 1)
    torch.manual_seed(0)
    gate = Gate(6, 2)
    fit(gate, inputs, right)
    assert float((gate(inputs).argmax(1) == (~sure).long()).float().mean()) > 0.95


def test_gate_inputs_by_hand():
    logits = torch.tensor([[[0.0, 0.0], [100.0, 0.0]]])
    features = torch.tensor([[7.0]])
    assert gate_inputs(logits, [features])[0].tolist() == pytest.approx([-math.log(2), -math.log(2), 0.0, LOG_FLOOR, 7.0])


def test_a_gate_of_a_constant_column_is_finite():
    gate = Gate(3, 2)
    inputs = torch.ones(10, 3)
    fit(gate, inputs, torch.ones(10, 2), steps=3)
    assert gate(inputs).isfinite().all()
