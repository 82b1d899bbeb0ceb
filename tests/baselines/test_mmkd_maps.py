"""MMKD on feature maps: weights, loss and meta step of the released code, written out again, and where maps are refused."""

import copy

import pytest
import torch
from rule_problems import env_and_policy
from test_camkd_maps import HERE
from torch.nn.functional import cross_entropy, kl_div, log_softmax, softmax

from kd_env.errors import InputError

BATCH = 16


def start(policy="mmkd(scale=released)", updates=0, **settings):
    keywords = {
        "student": "resnet8(width=2)",
        "batch_size": BATCH,
        "kd_weight": 0.5,
        "temperature": 4.0,
        "precision": "float64",
        **settings,
    }
    env, policy = env_and_policy(policy, HERE, **{"knowledge": "response,map_hint(strength=100,convolutions=3)", **keywords})
    env.reset(seed=0)
    for _ in range(updates):
        env.step(policy.rule.decide(policy.rule.context.batch()))
    return env.selection.distillation, policy.rule


def net(layers, inputs):
    """``models/meta_util.py``: a linear layer, ReLU, a linear layer, softmax."""
    return softmax(layers[2](layers[0](inputs).relu()), 1)


def released_terms(rule, batch, logits, maps, mapped):
    """``loss_div`` and ``loss_kd`` of ``train_meta.py``."""
    teachers = batch.teacher_logits.shape[1]
    logit_weights = net(rule.nets.of_logits, torch.cat([*batch.teacher_logits.unbind(1), logits.detach()], 1))
    divergences = [
        kl_div(log_softmax(logits / 4, 1), softmax(batch.teacher_logits[:, k] / 4, 1), reduction="none").sum(1) * 16
        for k in range(teachers)
    ]
    flat = [values.reshape(BATCH, -1) for values in (*batch.teacher_maps, maps.detach())]
    feature_weights = net(rule.nets.of_features, torch.cat([values @ values.t() for values in flat], 1))
    distances = [((mapped[k] - batch.teacher_maps[k]) ** 2).reshape(BATCH, -1).mean(-1) for k in range(teachers)]
    loss_div = (logit_weights * torch.stack(divergences, 1)).sum(-1).mean()
    return loss_div, (feature_weights * torch.stack(distances, 1)).sum() / BATCH


def terms_of(rule, batch, output):
    return released_terms(rule, batch, output.logits, output.maps, output.projections["maps.deep"])


@pytest.mark.long
def test_one_update_is_the_released_one_from_the_first_epoch():
    run, rule = start(updates=2)
    batch, output = run.observe(), run.student_output()
    loss_div, loss_kd = terms_of(rule, batch, output)
    expected = cross_entropy(output.logits, batch.labels) + loss_div + 100 * loss_kd
    loss = run.per_example_loss(rule.decide(rule.context.batch())).mean()
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-8)
    gradients = [torch.autograd.grad(value, run.student.parameters, retain_graph=True) for value in (loss, expected)]
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-8)


@pytest.mark.long
def test_the_meta_step_is_the_released_one_without_nesterov():
    """Two steps on the distillation terms and one on CE, by torch's own SGD on a copy of the student in training mode."""
    run, rule = start("mmkd(scale=released,inner_lr=0.01)", updates=3)
    inputs, batch = rule.hard_examples()
    pixels = inputs["pixel_values"].double()
    statistics = run.student.state()
    twin = copy.deepcopy(run.student.network).train()
    optimizer = torch.optim.SGD(twin.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    for name in ("distillation", "distillation", "ce"):
        output = twin(pixel_values=pixels, extra_outputs=frozenset({"maps"}))
        loss_div, loss_kd = terms_of(rule, batch, output)
        loss = loss_div + 100 * loss_kd if name == "distillation" else cross_entropy(output.logits, batch.labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    expected = cross_entropy(twin(pixel_values=pixels).logits, batch.labels).item()
    assert rule.meta_gradient(inputs, batch)[0].item() == pytest.approx(expected, rel=1e-5)
    for name, value in run.student.state().items():
        assert torch.equal(value, statistics[name]), "the student, and what its BatchNorm has seen, stay"


@pytest.mark.long
def test_the_meta_gradient_is_that_of_central_differences():
    _, rule = start("mmkd(distillation_steps=1,inner_lr=0.01)", updates=3, knowledge="response,map_hint(strength=5)")
    examples = rule.hard_examples()
    _, gradient = rule.meta_gradient(*examples)
    size = sum(float(values.square().sum()) for values in gradient) ** 0.5
    assert float(gradient[4].abs().max()) > 0.0, "the net of the maps learns"
    losses = []
    for step in (1e-4, -2e-4):
        with torch.no_grad():
            for parameter, values in zip(rule.nets.parameters(), gradient, strict=True):
                parameter += step * values / size
        losses.append(float(rule.meta_gradient(*examples)[0]))
    assert (losses[0] - losses[1]) / 2e-4 == pytest.approx(size, rel=1e-4)


@pytest.mark.long
def test_maps_have_length_1_unless_released():
    cases = {"mmkd": True, "mmkd(scale=released)": False, "mmkd(cosine=False)": False, "mmkd(scale=released,cosine=True)": True}
    for policy, cosine in cases.items():
        assert start(policy)[1].nets.cosine is cosine
    _, rule = start("mmkd(scale=released)", knowledge="response,hint", student="mlp(width=4)", temperature=2.0)
    assert rule.nets.cosine is True, "of vectors, as in the committed records"


@pytest.mark.long
def test_maps_of_a_named_stage_are_weighed():
    run, rule = start(knowledge="response,map_hint(stage=stage2)")
    batch, output = rule.context.batch(), run.student_output()
    flat = [values.flatten(1) for values in (*(stages["stage2"] for stages in batch.teacher_stages), output.stages["stage2"])]
    expected = net(rule.nets.of_features, torch.cat([values @ values.t() for values in flat], 1))
    torch.testing.assert_close(rule.decide(batch).weights["map_hint"], expected.detach())


@pytest.mark.parametrize(
    ("policy", "knowledge", "message"),
    [
        ("mmkd(meta_split=reward)", "response,map_hint", r"mmkd\(meta_split='reward'\): a bank keeps feature maps of train alone"),
        ("mmkd", "response,map_hint,hint", "policy mmkd has one set of feature weights; leave out hint or map_hint"),
        ("camkd", "response,map_hint(stage=stage2)", "classifiers read the last map, map_hint compares stage2; leave stage out"),
    ],
)
def test_what_cannot_be_weighed_is_refused(policy, knowledge, message):
    with pytest.raises(InputError, match=message):
        start(policy, knowledge=knowledge)
