"""Rules whose decisions carry gradients, or weights of their own for each knowledge type, against values worked out by hand."""

import math
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import linear

from baselines import amtml, camkd, entropy_dkd, mt_bert, uncertainty
from kd_env.benchmark.run_trial import make_env
from kd_env.benchmark.trial import Trial
from kd_env.errors import InputError
from kd_env.policies import registry
from kd_env.testing import check_policy
from kd_env.types import Decision, ModelOutput

TEXT = "domains(train=160,reward=48,validation=32,test=16)"
NAMES = ["amtml", "uncertainty", "entropy_dkd", "mt_bert", "camkd", "fitnet_mkd"]


def env_and_policy(name, teachers=None, task="digits", **settings):
    env = make_env(Trial(task, name, 0, teachers, settings={"updates": 20, **settings}))
    policy = registry.find(name).build(env, 0)
    env.reset(seed=0)
    return env, policy


def with_probability(p, classes=4):
    """Logits that give class 0 the probability ``p``."""
    return [math.log(p / (1 - p) * (classes - 1)), *[0.0] * (classes - 1)]


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


# amtml


def test_the_gate_by_hand():
    gate = amtml.Gate(2, [5, 7, 3], 1)
    with torch.no_grad():
        gate.u.copy_(torch.tensor([1.0, 2.0]))
        gate.theta.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]))
    features = torch.tensor([[math.log(2), math.log(3) / 2]])
    # scores u . (theta_k * f): ln 2, ln 3, ln 6
    # |u|^2 = 5, |theta|^2 = 4
    assert gate(ModelOutput(features, features))[0].tolist() == pytest.approx([2 / 11, 3 / 11, 6 / 11, 9.0])


def test_gates_of_equal_teachers_are_equal_and_of_one_teacher_one():
    gate = amtml.Gate(6, [4, 4], 2)
    with torch.no_grad():
        gate.theta[1] = gate.theta[0]
    features = torch.randn(9, 6, generator=torch.Generator().manual_seed(0))
    assert gate(ModelOutput(features, features))[:, :2].flatten().tolist() == pytest.approx([0.5] * 18)
    assert amtml.Gate(6, [4], 1)(ModelOutput(features, features))[:, :1].tolist() == [[1.0]] * 9


def test_disagreement_by_hand():
    sure = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]], dtype=torch.float64)
    weights = torch.tensor([[0.5, 0.5]], dtype=torch.float64, requires_grad=True)
    # the mixture is (1/2, 1/2), each KL is ln 2
    values = amtml.disagreement(weights, sure)
    assert values.tolist() == pytest.approx([math.log(2)])
    (slope,) = torch.autograd.grad(values.sum(), weights)
    assert slope.isfinite().all()
    alike = torch.tensor([[[0.3, 0.7], [0.3, 0.7]]], dtype=torch.float64)
    assert amtml.disagreement(weights.detach(), alike).tolist() == pytest.approx([0.0])
    impossible = torch.tensor([[[1.0, 0.0, 0.0], [0.5, 0.5, 0.0]]], requires_grad=False)
    sure_of_first = torch.tensor([[1.0, 0.0]], requires_grad=True)
    (slope,) = torch.autograd.grad(amtml.disagreement(sure_of_first, impossible).sum(), sure_of_first)
    assert slope.isfinite().all()


@pytest.mark.parametrize(("name", "integrated"), [("amtml", True), ("amtml(target=each)", False)])
def test_amtml_is_taught_by_one_target_and_by_group_hints(name, integrated):
    env, policy = env_and_policy(name, precision="float64", temperature=2.0)
    run = env.distillation
    gate, output, batch = run.student_output().auxiliary[:, :-1], run.student_output(), run.observe()
    loss = run.per_example_loss(policy.act(None))
    p = (batch.teacher_logits / 2.0).softmax(2)
    log_q = (output.logits / 2.0).log_softmax(1)
    if integrated:
        mixture = (gate[..., None] * p).sum(1)
        response = 4.0 * (mixture * (mixture.log() - log_q)).sum(1)
    else:
        response = 4.0 * (gate[..., None] * p * (p.log() - log_q[:, None])).sum((1, 2))
    # one hidden layer is the last of every group, and the teachers' last layer is what their classifier reads
    hints = torch.stack([(output.projections["layers"][k][:, -1] - batch.teacher_features[k]).square().mean(1) for k in range(4)], 1)
    torch.testing.assert_close(loss, response + hints.mean(1))
    assert response.min() > 0.0
    network = run.student.network
    gradients = torch.autograd.grad(
        loss.mean(), [network.auxiliary_module.u, network.auxiliary_module.theta, *network.network.parameters()]
    )
    assert all(gradient.abs().max() > 0.0 for gradient in gradients), "gate, maps and body all learn"


def test_amtml_refuses_another_target_and_a_setting_without_its_gate():
    with pytest.raises(InputError, match=r"amtml\(target='both'\): expected integrated or each"):
        env_and_policy("amtml(target=both)")
    for name in ("amtml", "uncertainty"):
        _, policy = env_and_policy(name, auxiliary_module="")
        with pytest.raises(
            InputError, match=r"auxiliary_module='': policy \w+ learns with its own, baselines\.\w+:\w+; leave auxiliary_module out"
        ):
            policy.act(None)


# uncertainty


def test_uncertainty_by_hand():
    env, policy = env_and_policy("uncertainty", kd_weight=0.25, knowledge="response,hint(strength=8)", precision="float64")
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
            env_and_policy("uncertainty", auxiliary_module=f"baselines.uncertainty:LogSigma(bound={bound})")


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
    env, policy = env_and_policy("entropy_dkd")
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
    env, policy = env_and_policy(f"mt_bert(scale={scale})", **setting)
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


# camkd, whole


def test_camkd_feature_weights_by_hand():
    hints = [torch.tensor([[1.0, 0.0]], dtype=torch.float64), torch.tensor([[0.0, 0.0, 1.0]], dtype=torch.float64)]
    logits = [with_probability(0.8, 2), with_probability(0.2, 2)]
    classifiers = [
        (torch.tensor([[logits[0][0] - 1.0, 0.0], [0.0, 9.0]], dtype=torch.float64), torch.tensor([1.0, 0.0], dtype=torch.float64)),
        (torch.tensor([[5.0, 5.0, logits[1][0]], [5.0, 5.0, 0.0]], dtype=torch.float64), torch.zeros(2, dtype=torch.float64)),
    ]
    # each hint through its classifier gives the label .8 and .2: 1/p = 1.25 and 5, softmax(c') = (.2, .8), weights 1 less that
    assert camkd.feature_weights(hints, classifiers, torch.tensor([0]))[0].tolist() == pytest.approx([0.8, 0.2])


@pytest.mark.parametrize("detach", [False, True])
def test_camkd_whole_by_hand(detach):
    pair = "digits/experts/upright,digits/experts/inverted"
    env, policy = env_and_policy(f"camkd(detach={detach})", pair, precision="float64", temperature=4.0)
    run, decision = env.distillation, policy.act(None)
    batch, output = run.observe(), run.student_output()
    maps = list(run.student.network.maps)
    mapped = [output.features @ matrix for matrix in maps]
    heads = [teacher.network.classifier for teacher in env.selection.pool.teachers]
    scales = [teacher.logit_scale for teacher in env.selection.pool.teachers]
    through = [s * linear(hint, h.weight.double(), h.bias.double()) for s, hint, h in zip(scales, mapped, heads, strict=True)]
    right = torch.stack([logits.softmax(1)[torch.arange(32), batch.labels] for logits in through], 1)  # [B, 2]
    v = (1.0 / right).flip(1) / (1.0 / right).sum(1, keepdim=True)  # of two, 1 - softmax(c') is the other's 1/p
    torch.testing.assert_close(decision.weights["hint"].detach(), v.detach(), rtol=1e-5, atol=1e-7)
    assert decision.weights["hint"].requires_grad is not detach
    hints = torch.stack([(hint - features).square().mean(1) for hint, features in zip(mapped, batch.teacher_features, strict=True)], 1)
    expected = (decision.weights["response"] * run.per_teacher_loss("response", 4.0)).sum(1) + 50 * (
        (v.detach() if detach else v) * hints
    ).sum(1)
    loss = run.per_example_loss(decision)
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-7)
    parameters = [run.student.network.network.body[0].weight, *maps]
    for gradient, by_hand in zip(
        *(torch.autograd.grad(value.mean(), parameters, retain_graph=True) for value in (loss, expected)), strict=True
    ):
        torch.testing.assert_close(gradient, by_hand, rtol=1e-4, atol=1e-7)


def test_the_hint_of_fitnet_mkd_flows_into_the_student():
    env, _ = env_and_policy("fitnet_mkd", precision="float64")
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
    env, _ = env_and_policy("uniform")
    run, alike = env.distillation, torch.full((32, 4), 0.25)
    decision, penalty = Decision({"response": alike}, {"response": 1.0}, 2.0), torch.arange(32.0)
    without = run.per_example_loss(decision)
    torch.testing.assert_close(run.per_example_loss(replace(decision, penalty=penalty)) - without, penalty, rtol=0, atol=1e-5)
    assert without.min() > 0.0
    assert run.per_example_loss(Decision({}, {}, 1.0)).tolist() == [0.0] * 32
    assert run.per_example_loss(Decision({}, {}, 1.0, penalty)).tolist() == penalty.tolist()
