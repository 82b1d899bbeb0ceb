"""MMKD's meta step against differences and torch's own SGD, when it is taken, and what it may touch."""

import copy

import pytest
import torch
from mmkd_play import TEXT, decide, make, parameters, play, same
from torch.nn.functional import cross_entropy

from kd_env.knowledge.response import per_teacher


@pytest.mark.long
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


@pytest.mark.long
def test_by_default_the_tracked_steps_have_the_rate_of_the_student():
    env, rule = make(precision="float64", optimizer="adam(lr=0.02,decay=linear)")
    play(env, rule, 10)
    examples = rule.hard_examples()
    by_default = rule.meta_gradient(*examples)[0].item()
    rule.inner_lr = 0.01  # half of the budget is left
    assert rule.meta_gradient(*examples)[0].item() == pytest.approx(by_default, rel=1e-12)
    rule.inner_lr = 0.02
    assert rule.meta_gradient(*examples)[0].item() != pytest.approx(by_default, rel=1e-6)


@pytest.mark.long
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
