"""Rules whose decisions carry gradients, or weights of their own for each knowledge type, against values worked out by hand."""

import math
from dataclasses import replace

import pytest
import torch
from rule_problems import begun
from weighing import with_probability

from baselines import camkd, entropy_dkd, mt_bert, uncertainty
from kd_env.benchmark.run_trial import make_env
from kd_env.benchmark.trial import Trial
from kd_env.errors import InputError
from kd_env.policies import registry
from kd_env.testing import check_policy
from kd_env.types import Decision, ModelOutput

TEXT = "domains(train=160,reward=48,validation=32,test=16)"
NAMES = ["amtml", "uncertainty", "entropy_dkd", "mt_bert", "camkd", "fitnet_mkd"]


@pytest.mark.parametrize("name", NAMES)
def test_each_keeps_to_the_protocol(name):
    check_policy(registry.find(name).make)


@pytest.mark.parametrize("name", NAMES)
def test_each_teaches_a_small_text_student(name):
    settings = {"student": "tiny-bert(width=8,layers=2,dropout=0)", "batch_size": 8, "updates": 3}
    env = make_env(Trial(TEXT, name, 0, "domains/experts", settings=settings))
    policy = registry.find(name).build(env, 0)
    observation, _ = env.reset(seed=0)
    for _ in range(3):
        observation, *_ = env.step(policy.act(observation))
    assert env.finished.update == 3
    assert not env.finished.diverged


# uncertainty


def test_uncertainty_by_hand():
    env, policy = begun("uncertainty", kd_weight=0.25, knowledge="response,hint(strength=8)", precision="float64")
    run = env.distillation
    free = run.student.network.auxiliary_module.free
    assert policy.act(None).strengths["response"].tolist() == pytest.approx([0.125] * 32), "a quarter, halved at sigma = 1"
    chosen = [0.0, math.log(2.0), math.log(0.5)]
    with torch.no_grad():
        free.copy_(3.0 * (torch.tensor(chosen, dtype=torch.float64) / 3.0).atanh())
    run.forget_batch()
    decision = policy.act(None)
    # 1 / (2 sigma^2) = 1/2, 1/8, 2, times .25, .25 * 8 and .75
    first = {name: strength[0].item() for name, strength in decision.strengths.items()}
    assert first == pytest.approx({"response": 0.125, "hint": 0.25, "label": 1.5})
    assert decision.penalty.tolist() == pytest.approx([0.0] * 32)
    assert all(torch.equal(weights, torch.full_like(weights, 0.25)) for weights in decision.weights.values())
    losses = {name: run.per_teacher_loss(name, decision.temperature).mean().item() for name in first}  # [rows, K] or [rows, 1]
    (slope,) = torch.autograd.grad(run.per_example_loss(decision).mean(), free)
    # d/ds (S L exp(-2 s) / 2 + s) = 1 - S L exp(-2 s), times d s / d free = 1 - tanh^2
    setting = {"response": 0.25, "hint": 2.0, "label": 0.75}
    expected = [(1 - setting[n] * losses[n] * math.exp(-2 * s)) * (1 - (s / 3) ** 2) for n, s in zip(setting, chosen, strict=True)]
    assert slope.tolist() == pytest.approx(expected)


@pytest.mark.long
def test_uncertainty_finds_its_optimum_and_stops_at_the_bound():
    log_sigma = uncertainty.LogSigma(4, [3], 1, bound=2.0)
    optimizer = torch.optim.Adam(log_sigma.parameters(), lr=0.05)
    losses, output = torch.tensor([0.25, 0.0]), ModelOutput(torch.zeros(6, 2), torch.zeros(6, 4))
    for _ in range(600):
        values = log_sigma(output)
        optimizer.zero_grad()
        (losses * (-2.0 * values).exp() / 2 + values).sum(1).mean().backward()
        optimizer.step()
    settled, vanishing = log_sigma(output)[0].tolist()
    assert settled == pytest.approx(0.5 * math.log(0.25), abs=1e-3), "sigma^2 = L"
    assert -2.0 <= vanishing < -1.9
    for _ in range(600):
        values = log_sigma(output)
        optimizer.zero_grad()
        (torch.tensor([0.25, 1.0]) * (-2.0 * values).exp() / 2 + values).sum(1).mean().backward()
        optimizer.step()
    assert log_sigma(output)[0, 1].item() == pytest.approx(0.0, abs=0.05), "it comes back from the bound"


def test_uncertainty_refuses_a_bound_that_is_none():
    for bound in ("0", "-1", "1e999"):
        with pytest.raises(InputError, match=r"bound=.*expected a number above 0"):
            begun("uncertainty", auxiliary_module=f"baselines.uncertainty:LogSigma(bound={bound})")


def test_uncertainty_refuses_types_that_are_left_out_at_first():
    with pytest.raises(InputError, match=r"policy uncertainty: sigma learns from epoch 1; leave hint\(skip_epochs=2\) out"):
        begun("uncertainty", knowledge="response,hint(skip_epochs=2)")


# entropy_dkd


def logits_of(*rows):
    return torch.tensor([rows], dtype=torch.float64).clamp_min(1e-300).log()


def test_entropy_weights_by_hand():
    # entropies ln 4, ln 2 and 0: shares 2/3, 1/3, 0, weights (1/3, 2/3, 1) / 2
    shares = entropy_dkd.weights(logits_of([0.25] * 4, [0.5, 0.5, 0, 0], [1, 0, 0, 0]))
    assert shares[0].tolist() == pytest.approx([1 / 6, 1 / 3, 1 / 2])
    # of two, ln 2 and 2 ln 2: shares 1/3, 2/3
    assert entropy_dkd.weights(logits_of([0.5, 0.5, 0, 0], [0.25] * 4))[0].tolist() == pytest.approx([2 / 3, 1 / 3])


@pytest.mark.parametrize(
    "weights", [entropy_dkd.weights, lambda logits: mt_bert.weights(logits, torch.zeros(len(logits), dtype=torch.int64))]
)
@pytest.mark.parametrize("scale", [0.0, 1.0, 1e4])
def test_weights_are_on_the_simplex_and_follow_a_permutation(weights, scale):
    generator = torch.Generator().manual_seed(0)
    logits = scale * torch.randn(40, 3, 5, generator=generator)
    shares = weights(logits)
    assert shares.isfinite().all()
    assert (shares >= 0.0).all()
    assert shares.sum(1).tolist() == pytest.approx([1.0] * 40, abs=1e-5)
    order = torch.tensor([2, 0, 1])
    torch.testing.assert_close(weights(logits[:, order]), shares[:, order])
    doubled = weights(logits[:, [0, 1, 1]])
    torch.testing.assert_close(doubled[:, 1], doubled[:, 2])
    assert weights(logits[:, :1]).tolist() == [[1.0]] * 40


def test_entropy_dkd_weighs_both_parts_alike_under_pure_distillation():
    env, policy = begun("entropy_dkd")
    assert env.selection.settings.distillation.kd_weight == 1.0
    decision = policy.act(None)
    assert list(decision.weights) == ["tckd", "nckd"]
    expected = entropy_dkd.weights(env.distillation.observe().teacher_logits)
    assert all(torch.equal(weights, expected) for weights in decision.weights.values())
    assert decision.strengths == {"tckd": 1.0, "nckd": 1.0}
    assert not env.distillation.settings.uses_hard_labels


# mt_bert


def test_mt_bert_by_hand():
    logits = torch.tensor([[with_probability(math.exp(-1)), with_probability(math.exp(-3))]], dtype=torch.float64)
    # c = 1 and 3: 1/2 and 1/4
    assert mt_bert.weights(logits, torch.tensor([0]))[0].tolist() == pytest.approx([2 / 3, 1 / 3])
    three = torch.tensor([[with_probability(math.exp(-c)) for c in (1, 2, 5)]], dtype=torch.float64)
    assert mt_bert.weights(three, torch.tensor([0]))[0].tolist() == pytest.approx([1 / 2, 1 / 3, 1 / 6])


@pytest.mark.parametrize("scale", ["matched", "released"])
def test_mt_bert_sums_as_its_scale_says(scale):
    setting = {"kd_weight": 0.5, "temperature": 3.0, "knowledge": "response,layer(strength=2)", "precision": "float64"}
    env, policy = begun(f"mt_bert(scale={scale})", **setting)
    run = env.distillation
    loss, batch = run.per_example_loss(policy.act(None)), run.observe()
    c = camkd.teacher_ce(batch.teacher_logits, batch.labels)
    responses, hidden, label = (run.per_teacher_loss(name, 3.0) for name in ("response", "layer", "label"))
    if scale == "matched":
        w = mt_bert.weights(batch.teacher_logits, batch.labels)
        expected = 0.5 * (w * responses).sum(1) + 0.5 * 2.0 * hidden.mean(1) + 0.5 * label[:, 0]
    else:
        expected = (responses / (1.0 + c)).sum(1) + 2.0 * hidden.sum(1) + label[:, 0]
    torch.testing.assert_close(loss, expected)


# fitnet_mkd, and penalties


def test_the_hint_of_fitnet_mkd_flows_into_the_student():
    env, _ = begun("fitnet_mkd", precision="float64")
    run, batch = env.distillation, env.distillation.observe()
    assert run.loss.terms["hint"].strength == 100.0
    body, maps = run.student.network.network.body[0].weight, list(run.student.network.maps)
    (gradient,) = torch.autograd.grad(run.per_teacher_loss("hint", 1.0).mean(), body)  # of [B, K]
    features = run.student_output().features
    pairs = zip(maps, batch.teacher_features, strict=True)
    slope = sum(2.0 * (features @ matrix - theirs) @ matrix.T / matrix.shape[1] for matrix, theirs in pairs) / (32 * 4)
    pixels = run.batch_inputs()["pixel_values"].flatten(1).double()
    torch.testing.assert_close(gradient, ((slope * (features > 0)).T @ pixels).detach())
    assert gradient.abs().max() > 1e-6


def test_the_loss_takes_a_decision_s_penalty_as_it_is():
    env, _ = begun("uniform")
    run, alike = env.distillation, torch.full((32, 4), 0.25)
    decision, penalty = Decision({"response": alike}, {"response": 1.0}, 2.0), torch.arange(32.0)
    without = run.per_example_loss(decision)
    torch.testing.assert_close(run.per_example_loss(replace(decision, penalty=penalty)) - without, penalty, rtol=0, atol=1e-5)
    assert without.min() > 0.0
    assert run.per_example_loss(Decision({}, {}, 1.0)).tolist() == [0.0] * 32
    assert run.per_example_loss(Decision({}, {}, 1.0, penalty)).tolist() == penalty.tolist()
