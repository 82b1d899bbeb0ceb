"""MMKD: its nets and its buffer by hand, its meta step against differences, and what it may touch and read."""

import copy

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from baselines.hard_buffer import HardBuffer
from baselines.meta_weights import MetaWeights, gram_rows
from kd_env.benchmark import records
from kd_env.benchmark.replay import replay
from kd_env.benchmark.run_trial import make_env, run_trial, run_trials
from kd_env.benchmark.trial import Trial
from kd_env.errors import InputError
from kd_env.knowledge.response import per_teacher
from kd_env.policies import registry
from kd_env.testing import check_policy

TEXT = "domains(train=160,reward=48,validation=32,test=16)"


def make(policy="mmkd", seed=0, task="digits", **settings):
    env = make_env(Trial(task, policy, seed, settings={"updates": 20, **settings}))
    policy = registry.find(policy).build(env, seed)
    env.reset(seed=seed)
    return env, policy.rule


def decide(rule):
    return rule.decide(rule.context.batch())


def play(env, rule, updates):
    for _ in range(updates):
        env.step(decide(rule))


def parameters(rule):
    return [parameter.detach().clone() for parameter in rule.nets.parameters()]


def same(first, second):
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


# buffer


def test_the_buffer_fills_with_all_then_takes_what_is_wrong():
    buffer = HardBuffer(5, seed=0)
    buffer.put(np.array([1, 2, 3]), np.array([False, False, False]))
    buffer.put(np.array([4, 5, 6]), np.array([False, False, True]))
    assert buffer.rows.tolist() == [1, 2, 3, 4, 5]
    buffer.put(np.array([7, 8, 9]), np.array([True, False, True]))
    assert len(buffer.rows) == 5
    assert {7, 9} < set(buffer.rows.tolist()) < {1, 2, 3, 4, 5, 7, 9}
    kept = buffer.rows.copy()
    buffer.put(np.array([10, 11]), np.array([False, False]))
    assert (buffer.rows == kept).all()
    buffer.put(np.arange(20, 30), np.ones(10, dtype=bool))
    assert sorted(buffer.rows.tolist()) == [20, 21, 22, 23, 24]
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


# the meta step


@pytest.mark.parametrize(("task", "student"), [("digits", "mlp"), (TEXT, "tiny-bert(width=8,layers=1)")], ids=["image", "text"])
def test_the_meta_gradient_is_that_of_central_differences(task, student):
    """With one step of distillation the nets read the student before any step, which no weight has moved."""
    settings = {"precision": "float64", "kd_weight": 0.6, "student": student}
    env, rule = make("mmkd(distillation_steps=1,inner_lr=0.02)", task=task, **settings)
    play(env, rule, 8)
    examples = rule.hard_examples()
    _, gradient = rule.meta_gradient(*examples)
    size = sum(float(values.square().sum()) for values in gradient) ** 0.5
    assert size > 0
    generator = torch.Generator().manual_seed(0)
    noise = [torch.randn(values.shape, generator=generator, dtype=torch.float64) for values in gradient]
    length = sum(float(values.square().sum()) for values in noise) ** 0.5
    direction = [0.5 * n / length + 0.5 * g / size for n, g in zip(noise, gradient, strict=True)]
    losses = []
    for step in (1e-5, -2e-5):
        with torch.no_grad():
            for parameter, values in zip(rule.nets.parameters(), direction, strict=True):
                parameter += step * values
        losses.append(float(rule.meta_gradient(*examples)[0]))
    slope = (losses[0] - losses[1]) / 2e-5
    along = sum(float((g * d).sum()) for g, d in zip(gradient, direction, strict=True))
    assert along == pytest.approx(slope, rel=1e-5)


def test_the_tracked_steps_are_two_of_distillation_and_one_of_ce():
    """Taken by torch's own SGD on a copy of the student; the hard label is no part of the distillation steps."""
    settings = {"precision": "float64", "kd_weight": 0.6, "temperature": 2.0, "knowledge": "response,hint(strength=3)"}
    env, rule = make("mmkd(inner_lr=0.05,momentum=0.8,inner_weight_decay=0.01)", **settings)
    play(env, rule, 3)
    inputs, batch = rule.hard_examples()
    twin = copy.deepcopy(env.selection.distillation.student.network)
    optimizer = torch.optim.SGD(twin.parameters(), lr=0.05, momentum=0.8, weight_decay=0.01)
    pixels = inputs["pixel_values"].double()
    for name in ("distillation", "distillation", "ce"):
        output = twin(pixel_values=pixels)
        loss = cross_entropy(output.logits, batch.labels)
        if name == "distillation":
            responses = per_teacher(output.logits, batch.teacher_logits, 2.0)
            far = [
                (hint - features).square().mean(1)
                for hint, features in zip(output.projections["linear"], batch.teacher_features, strict=True)
            ]
            weighed = rule.nets.response(batch.teacher_logits, output.logits).detach() * responses
            weighed = weighed + 3 * rule.nets.hint(batch.teacher_features, output.features).detach() * torch.stack(far, 1)
            loss = 0.6 * weighed.sum(1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    expected = cross_entropy(twin(pixel_values=pixels).logits, batch.labels).item()
    assert rule.meta_gradient(inputs, batch)[0].item() == pytest.approx(expected, rel=1e-10)


def test_by_default_the_tracked_steps_have_the_rate_of_the_student():
    env, rule = make(precision="float64", optimizer="adam(lr=0.02,decay=linear)")
    play(env, rule, 10)
    examples = rule.hard_examples()
    by_default = rule.meta_gradient(*examples)[0].item()
    rule.inner_lr = 0.01  # half of the budget is left
    assert rule.meta_gradient(*examples)[0].item() == pytest.approx(by_default, rel=1e-12)
    rule.inner_lr = 0.02
    assert rule.meta_gradient(*examples)[0].item() != pytest.approx(by_default, rel=1e-6)


def test_meta_steps_lower_the_loss_that_counts():
    env, rule = make("mmkd(learning_rate=0.01,inner_lr=0.02)")
    play(env, rule, 8)
    examples = rule.hard_examples()
    before = float(rule.meta_gradient(*examples)[0])
    for _ in range(20):
        rule.learn_from(*examples)
    assert float(rule.meta_gradient(*examples)[0]) < before - 0.01


@pytest.mark.parametrize("split", ["train", "reward"])
def test_a_meta_step_leaves_the_student_as_it_is_and_is_counted(split):
    env, rule = make(f"mmkd(meta_split={split})", student="mlp(width=8,dropout=0.5)")
    play(env, rule, 7)
    run = env.selection.distillation
    # 8 mini-batches seen; meta steps after updates 1 and 6: two of distillation, CE, and CE at the end, of reward one look more
    passes = 8 + 2 * (4 + (split == "reward"))
    assert run.state.forward_examples.tolist() == [32 * passes]
    network, shown = [parameter.detach().clone() for parameter in run.student.parameters], run.observe().student.logits
    nets, draws = parameters(rule), torch.get_rng_state()
    rule.learn_from(*rule.hard_examples())
    assert same(network, run.student.parameters)
    assert all(parameter.grad is None or parameter.grad.isfinite().all() for parameter in run.student.parameters)
    assert torch.equal(torch.get_rng_state(), draws)
    assert run.student.network.training
    assert run.observe().student.logits is shown
    assert not same(nets, parameters(rule))


def test_the_nets_learn_by_meta_steps_alone_and_decisions_carry_no_gradient():
    env, rule = make()
    start = parameters(rule)
    play(env, rule, 1)
    assert same(start, parameters(rule)), "nothing before the first update is done"
    decision = decide(rule)
    learned = parameters(rule)
    assert not same(start, learned)
    assert not decision.differentiable
    again = decide(rule)
    assert same(learned, parameters(rule)), "asked twice, it learns once"
    assert torch.equal(again.weights["hint"], decision.weights["hint"])
    play(env, rule, 5)
    assert same(learned, parameters(rule)), "the next is due after update 6"
    decide(rule)
    assert not same(learned, parameters(rule))


def test_a_gradient_that_is_not_finite_is_left_out(monkeypatch):
    env, rule = make()
    play(env, rule, 3)
    nets = parameters(rule)
    broken = [torch.full_like(values, torch.nan) for values in nets]
    monkeypatch.setattr(rule, "meta_gradient", lambda inputs, batch: (torch.tensor(torch.nan), broken))
    rule.learn_from(*rule.hard_examples())
    assert same(nets, parameters(rule))


# what it reads


def learned_with(split, poison=None):
    env, rule = make(f"mmkd(meta_split={split})", reward_labels=64, seed=1)
    labels, original = env.selection.data.labels, dict(env.selection.data.labels)
    assert env.selection.distillation.reward_split.rows[0].tolist() == rule.labelled.tolist() or split == "train"
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


def test_it_reads_the_labels_it_says():
    def train(env):
        return "train", slice(None)

    def hidden(env):
        return "reward", np.setdiff1d(np.arange(len(env.selection.data.labels["reward"])), env.selection.distillation.reward_split.rows[0])

    def labelled(env):
        return "reward", env.selection.distillation.reward_split.rows[0]

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
