"""CA-MKD on feature maps: the released step, written out again, gives the same loss, weights and gradients."""

import pytest
import torch
from rule_problems import env_and_policy
from torch.nn.functional import cross_entropy, kl_div, log_softmax, softmax

from baselines.compared_features import mapped_features
from kd_env.models.networks import build
from kd_env.teachers import NetworkTeacher

HERE = "test_camkd_maps:pool"


def pool(task):
    """Three untrained teachers with maps of one size and other numbers of channels."""
    networks = ("resnet8(width=2)", "resnet8(width=3)", "wrn(depth=10,widen=1)")
    return [NetworkTeacher(f"teacher{k}", build(text, task, k), task, logit_scale=3.0) for k, text in enumerate(networks)]


def start(**settings):
    keywords = {"student": "resnet8(width=2)", "batch_size": 16, "kd_weight": 0.5, "temperature": 4.0, "precision": "float64", **settings}
    env, policy = env_and_policy("camkd(scale=released)", HERE, **keywords)
    env.reset(seed=0)
    return env.selection.distillation, policy.rule


def released_loss(run, rule, features=True):
    """``CE + KL / K + 50 hints / K``, with the weights of helper/loops.py and distiller_zoo/CAMKD.py."""
    batch, student = run.observe(), run.student_output()
    labels, size, teachers = batch.labels, len(batch.labels), run.num_teachers
    loss_t = torch.stack([cross_entropy(batch.teacher_logits[:, k], labels, reduction="none") for k in range(teachers)])
    attention = (1.0 - softmax(loss_t, 0)) / (teachers - 1)
    divergences = [
        kl_div(log_softmax(student.logits / 4, 1), softmax(batch.teacher_logits[:, k] / 4, 1), reduction="none").sum(1) * 16
        for k in range(teachers)
    ]
    loss = cross_entropy(student.logits, labels) + (attention * torch.stack(divergences)).sum() / (size * teachers)
    mapped = student.projections["maps"]
    heads = [(weight.double(), bias.double()) for weight, bias in rule.context.classifiers()]
    logits = [maps.mean((2, 3)) @ weight.T + bias for maps, (weight, bias) in zip(mapped, heads, strict=True)]
    loss_f = torch.stack([cross_entropy(values, labels, reduction="none") for values in logits])
    weight = (1.0 - softmax(loss_f, 0)) / (teachers - 1)
    distances = torch.stack([((maps - batch.teacher_maps[k]) ** 2).flatten(1).mean(1) for k, maps in enumerate(mapped)])
    return loss + 50 * (weight * distances).sum() / (size * teachers) if features else loss


def after_an_epoch(run):
    run.state.update[:] = len(run.data.labels["train"]) // 16
    run.forget_batch()


def test_one_update_is_the_released_one():
    run, rule = start(knowledge="response,map_hint(strength=50)")
    after_an_epoch(run)
    loss = run.per_example_loss(rule.decide(rule.context.batch())).mean()
    expected = released_loss(run, rule)
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-7)
    parameters = run.student.parameters
    gradients = [torch.autograd.grad(value, parameters, retain_graph=True, materialize_grads=True) for value in (loss, expected)]
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("knowledge", ["response,map_hint(strength=50)", "response,map_hint(strength=50,skip_epochs=1)"])
def test_the_first_epoch_is_without_features_as_released(knowledge):
    run, rule = start(knowledge=knowledge)
    loss = run.per_example_loss(rule.decide(rule.context.batch())).mean()
    torch.testing.assert_close(loss, released_loss(run, rule, features=False), rtol=1e-5, atol=1e-7)
    after_an_epoch(run)
    loss = run.per_example_loss(rule.decide(rule.context.batch())).mean()
    torch.testing.assert_close(loss, released_loss(run, rule), rtol=1e-5, atol=1e-7)


def test_weights_of_maps_carry_a_gradient_unless_detached():
    for options, carries in (("scale=released", True), ("detach=True", False)):
        env, policy = env_and_policy(
            f"camkd({options})", HERE, student="resnet8(width=2)", batch_size=8, kd_weight=0.5, knowledge="response,map_hint,hint"
        )
        rule = policy.rule
        env.reset(seed=0)
        decision = rule.decide(rule.context.batch())
        assert decision.weights["map_hint"].requires_grad is carries
        torch.testing.assert_close(decision.weights["map_hint"].sum(1), torch.ones(8))
        assert set(decision.weights) == {"response", "hint", "map_hint"}


def test_features_of_maps_are_what_the_pooling_gives():
    run, rule = start(knowledge="response,map_hint")
    mapped = mapped_features(rule.context, "map_hint", run.student_output())
    assert [tuple(values.shape) for values in mapped] == [(16, 8), (16, 12), (16, 64)]
    torch.testing.assert_close(mapped[1][3, 5], run.student_output().projections["maps"][1][3, 5].mean())
    assert rule.hints == ["map_hint"]
