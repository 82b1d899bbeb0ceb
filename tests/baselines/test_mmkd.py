"""MMKD: its nets and its buffer by hand, what it reads, and its runs as a policy."""

import numpy as np
import pytest
import torch
from mmkd_play import TEXT, decide, make, parameters, play, same

from baselines.hard_buffer import HardBuffer
from baselines.meta_weights import MetaWeights, gram_rows
from kd_env.benchmark import records
from kd_env.benchmark.replay import replay
from kd_env.benchmark.run_trial import run_trial, run_trials
from kd_env.benchmark.trial import Trial
from kd_env.errors import InputError
from kd_env.policies import registry
from kd_env.testing import check_policy

# buffer


def test_the_buffer_fills_with_all_then_takes_what_is_wrong():
    buffer = HardBuffer(5, seed=0)
    buffer.put(np.array([1, 2, 3]), np.array([False, False, False]))
    buffer.put(np.array([4, 5, 6]), np.array([False, False, True]))
    assert buffer.positions.tolist() == [1, 2, 3, 4, 5]
    buffer.put(np.array([7, 8, 9]), np.array([True, False, True]))
    assert len(buffer.positions) == 5
    assert {7, 9} < set(buffer.positions.tolist()) < {1, 2, 3, 4, 5, 7, 9}
    kept = buffer.positions.copy()
    buffer.put(np.array([10, 11]), np.array([False, False]))
    assert (buffer.positions == kept).all()
    buffer.put(np.arange(20, 30), np.ones(10, dtype=bool))
    assert sorted(buffer.positions.tolist()) == [20, 21, 22, 23, 24]
    assert sorted(buffer.sample(5).tolist()) == [20, 21, 22, 23, 24], "each once"
    assert len(buffer.sample(8)) == 8, "where there are fewer, some twice"


# nets


def test_gram_rows_by_hand():
    features = torch.tensor([[3.0, 4.0], [0.0, 2.0], [1.0, 0.0]])
    assert gram_rows(features, cosine=False).tolist() == [[25.0, 8.0, 3.0], [8.0, 4.0, 0.0], [3.0, 0.0, 1.0]]
    # lengths 5, 2, 1
    assert gram_rows(features)[0].tolist() == pytest.approx([1.0, 0.8, 0.6])
    # quantiles 0, 1/2, 1 of 25, 8, 3
    assert gram_rows(features, 3, cosine=False)[0].tolist() == [3.0, 8.0, 25.0]


def test_quantiles_of_gram_rows_do_not_mind_the_order_nor_the_size_of_a_mini_batch():
    features = torch.randn(9, 4, generator=torch.Generator().manual_seed(0))
    order = torch.tensor([0, 5, 3, 8, 1, 2, 7, 6, 4])
    assert torch.allclose(gram_rows(features[order], 5)[0], gram_rows(features, 5)[0])
    assert not torch.allclose(gram_rows(features[order])[0], gram_rows(features)[0])
    torch.manual_seed(0)
    nets = MetaWeights(2, 3, batch_size=9, gram_width=5)
    assert nets.hint([features, features], features).shape == (9, 2)
    assert nets.hint([features[:4], features[:4]], features[:4]).shape == (4, 2)


@pytest.mark.parametrize("size", [0.0, 1.0, 1e4])
@pytest.mark.parametrize("teachers", [1, 2, 3])
def test_weights_are_on_the_simplex_and_do_not_reach_the_student(teachers, size):
    torch.manual_seed(teachers)
    nets = MetaWeights(teachers, 5, batch_size=6)
    logits, features = size * torch.randn(6, teachers, 5), [size * torch.randn(6, 3 + k) for k in range(teachers)]
    student, student_features = torch.randn(6, 5, requires_grad=True), torch.randn(6, 4, requires_grad=True)
    for weights in (nets.response(logits, student), nets.hint(features, student_features)):
        assert weights.shape == (6, teachers)
        assert weights.isfinite().all()
        assert weights.sum(1).tolist() == pytest.approx([1.0] * 6)
        weights[:, 0].sum().backward()
    assert student.grad is None
    assert student_features.grad is None


# what it reads


def learned_with(split, poison=None):
    env, rule = make(f"mmkd(meta_split={split})", reward_labels=64, seed=1)
    labels, original = env.selection.data.labels, dict(env.selection.data.labels)
    assert env.selection.distillation.reward_split.positions[0].tolist() == rule.labelled.tolist() or split == "train"
    if poison is not None:
        name, rows = poison(env)
        labels[name] = labels[name].clone()
        labels[name][rows] = (labels[name][rows] + 1) % 10
    try:
        env.selection.begin(1)
        play(env, rule, 12)
    finally:
        labels.update(original)
    return parameters(rule)


@pytest.mark.long
def test_it_reads_the_labels_it_says():
    def train(env):
        return "train", slice(None)

    def hidden(env):
        return "reward", np.setdiff1d(
            np.arange(len(env.selection.data.labels["reward"])), env.selection.distillation.reward_split.positions[0]
        )

    def labelled(env):
        return "reward", env.selection.distillation.reward_split.positions[0]

    by_train, by_reward = learned_with("train"), learned_with("reward")
    assert not same(by_train, learned_with("train", train)), "in pure distillation, too"
    assert same(by_train, learned_with("train", labelled))
    assert same(by_reward, learned_with("reward", train))
    assert not same(by_reward, learned_with("reward", labelled))
    assert same(by_reward, learned_with("reward", hidden))
    assert not same(by_train, by_reward)


def test_it_declares_what_it_reads():
    for policy, access in (("mmkd", "gradient"), ("mmkd(meta_split=reward)", "reward labels")):
        assert make(policy)[1].context.access == registry.find(policy).access == access
        assert registry.find(policy).build(make(policy)[0], 0).access == access


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("every=0", "every=0.*whole number of at least 1"),
        ("buffer=0", "buffer=0.*whole number of at least 1"),
        ("meta_split=test", "meta_split='test'.*expected train or reward"),
        ("scale=big", "scale='big'.*expected matched or released"),
        ("inner_lr=-1", "inner_lr=-1.*at least 0"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        make(f"mmkd({options})")


def test_it_works_alone(tmp_path):
    trials = [Trial("digits", "mmkd", seed, settings={"updates": 4}) for seed in (0, 1)]
    with pytest.raises(InputError, match="policy 'mmkd' teaches one student at a time; run it without --population"):
        run_trials(trials, tmp_path, lambda _: None)


# as a policy


def test_scale_by_hand():
    for scale, expected in (("matched", (0.25, 25.0, 0.75)), ("released", (1.0, 100.0, 1.0))):
        _, rule = make(f"mmkd(scale={scale})", kd_weight=0.25)
        assert tuple(decide(rule).strengths[name] for name in ("response", "hint", "label")) == pytest.approx(expected)


def test_without_hints_it_weighs_responses_alone():
    env, rule = make(knowledge="response")
    play(env, rule, 3)
    assert set(decide(rule).weights) == {"response"}


def test_it_keeps_to_the_protocol():
    from baselines.mmkd import MMKD

    check_policy(MMKD)


@pytest.mark.parametrize(
    ("policy", "task", "settings"),
    [
        ("mmkd", "digits", {}),
        ("mmkd(meta_split=reward,gram_width=4)", "digits", {"reward_labels": 20, "batch_size": 24, "kd_weight": 0.5}),
        ("mmkd", "digits", {"teachers": "digits/experts/upright"}),
        ("mmkd", TEXT, {"student": "tiny-bert(width=8,layers=1)"}),
    ],
    ids=["image", "reward", "one-teacher", "text"],
)
def test_its_record_is_replayed(policy, task, settings, tmp_path):
    settings = dict(settings)
    trial = Trial(task, policy, 0, settings.pop("teachers", None), settings={"updates": 12, **settings})
    record = run_trial(trial, tmp_path)
    records.append(tmp_path, record)
    assert record["access"] == ("reward labels" if "reward" in policy else "gradient")
    assert replay(tmp_path, trial.id) == []
