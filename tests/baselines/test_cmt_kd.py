"""CMT-KD: the combined feature and the loss against a reference written by hand, and settings that cannot be combined."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from baselines import cmt_kd
from kd_env.benchmark.run_trial import make_env
from kd_env.benchmark.trial import Trial
from kd_env.errors import InputError
from kd_env.knowledge.attention_transfer import AttentionTransfer
from kd_env.knowledge.hint import Hint
from kd_env.knowledge.layer import Layer
from kd_env.knowledge.terms import parse_terms
from kd_env.policies import registry
from kd_env.testing import check_policy
from kd_env.types import ModelOutput, TeacherShapes

TEXT = "domains(train=160,reward=48,validation=32,test=16)"


def env_and_policy(task="digits", teachers=None, **settings):
    env = make_env(Trial(task, "cmt_kd", 0, teachers, settings={"updates": 20, "precision": "float64", **settings}))
    policy = registry.find("cmt_kd").build(env, 0)
    env.reset(seed=0)
    return env, policy


def tensors(*shapes):
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]


def importances_of(theta, rows):
    """``softmax_k`` of ``theta [L, K]`` by its definition, for each row."""
    powers = theta.exp()
    return (powers / powers.sum(1, keepdim=True)).expand(rows, -1, -1)


def teachers(**values):
    """Outputs of the teachers, of which ``features``, ``layers``, ``maps`` or ``stages`` matter."""
    ((name, parts),) = values.items()
    nothing = torch.zeros(1, 1)
    return [ModelOutput(nothing, nothing)._replace(**{name: part}) for part in parts]


def test_it_keeps_to_the_protocol():
    check_policy(registry.find("cmt_kd").make)


def test_two_features_are_combined_by_hand():
    values = [torch.tensor([[1.0, 2.0]]), torch.tensor([[5.0, -2.0]])]
    assert cmt_kd.combined(values, torch.tensor([[0.25, 0.75]])).tolist() == [[4.0, -1.0]]
    layers = [torch.tensor([[[1.0], [2.0]]]), torch.tensor([[[3.0], [6.0]]])]
    assert cmt_kd.combined(layers, torch.tensor([[[1.0, 0.0], [0.5, 0.5]]])).tolist() == [[[1.0], [4.0]]]


def test_the_module_starts_from_equal_importances_that_add_up_to_one():
    module = cmt_kd.Importance(6, [3, 3, 3], 2)
    output = ModelOutput(torch.zeros(5, 2), torch.zeros(5, 6))
    assert module(output).shape == (5, cmt_kd.MAX_LAYERS, 3)
    torch.testing.assert_close(module(output), torch.full((5, cmt_kd.MAX_LAYERS, 3), 1 / 3))
    with torch.no_grad():
        module.theta[0] = torch.tensor([0.0, 2.0, -1.0])
    assert module(output)[2, 0].tolist() == pytest.approx(importances_of(torch.tensor([[0.0, 2.0, -1.0]]), 1)[0, 0].tolist())


def test_features_are_compared_with_the_combined_feature():
    features, first, second, *maps = tensors((7, 4), (7, 5), (7, 5), (4, 5), (4, 5))
    theta = torch.tensor([[0.3, -0.4]], dtype=torch.float64)
    mapped = tuple(features @ matrix for matrix in maps)
    student = ModelOutput(torch.zeros(7, 2), features, projections={"linear": mapped})
    loss = cmt_kd.combined_loss(Hint(), student, teachers(features=[first, second]), importances_of(theta, 7))
    pi = 1 / (1 + torch.exp(torch.tensor(-0.7, dtype=torch.float64)))  # of the first
    matrix, target = pi * maps[0] + (1 - pi) * maps[1], pi * first + (1 - pi) * second
    expected = torch.stack([(features[b] @ matrix - target[b]).square().mean() for b in range(7)])
    torch.testing.assert_close(loss, expected, rtol=0, atol=1e-10)


def test_each_layer_has_its_own_importances_and_layers_are_paired_evenly():
    theta, first, second, *mapped = tensors((3, 2), (6, 3, 5), (6, 3, 5), (6, 2, 5), (6, 2, 5))
    student = ModelOutput(torch.zeros(6, 2), torch.zeros(6, 4), layers=torch.zeros(6, 2, 4), projections={"layers": tuple(mapped)})
    pi = importances_of(theta, 6)
    loss = cmt_kd.combined_loss(Layer(), student, teachers(layers=[first, second]), pi)
    expected = torch.zeros(6, dtype=torch.float64)
    for layer, of_teacher in enumerate((0, 2)):  # of three layers, the first and the last
        own = pi[0, layer, 0] * mapped[0][:, layer] + pi[0, layer, 1] * mapped[1][:, layer]
        target = pi[0, layer, 0] * first[:, of_teacher] + pi[0, layer, 1] * second[:, of_teacher]
        expected += (own - target).square().mean(1) / 2
    torch.testing.assert_close(loss, expected, rtol=0, atol=1e-10)


def test_maps_are_combined_before_their_attention():
    maps, first, second, theta = tensors((4, 3, 2, 2), (4, 6, 2, 2), (4, 6, 2, 2), (1, 2))
    student = ModelOutput(torch.zeros(4, 2), torch.zeros(4, 3), maps=maps)
    pi = importances_of(theta, 4)
    loss = cmt_kd.combined_loss(AttentionTransfer(), student, teachers(maps=[first, second]), pi)
    sides = [(side**2).mean(1).flatten(1) for side in (maps, pi[0, 0, 0] * first + pi[0, 0, 1] * second)]
    unit = [side / side.norm(dim=1, keepdim=True) for side in sides]
    torch.testing.assert_close(loss, (unit[0] - unit[1]).square().mean(1), rtol=0, atol=1e-10)


def test_each_stage_has_its_own_importances_and_stages_are_added():
    shapes = {"stage1": (4, 3, 4, 4), "stage2": (4, 5, 2, 2)}
    own, first, second = (dict(zip(shapes, tensors(*shapes.values()), strict=True)) for _ in range(3))
    second = {name: values.flip(0) * 1.5 for name, values in second.items()}
    (theta,) = tensors((2, 2))
    pi = importances_of(theta, 4)
    student = ModelOutput(torch.zeros(4, 2), torch.zeros(4, 5), stages=own)
    loss = cmt_kd.combined_loss(AttentionTransfer(stages="all"), student, teachers(stages=[first, second]), pi)
    expected = torch.zeros(4, dtype=torch.float64)
    for number, name in enumerate(shapes):
        sides = [(side**2).mean(1).flatten(1) for side in (own[name], pi[0, number, 0] * first[name] + pi[0, number, 1] * second[name])]
        unit = [side / side.norm(dim=1, keepdim=True) for side in sides]
        expected += (unit[0] - unit[1]).square().mean(1)
    torch.testing.assert_close(loss, expected, rtol=0, atol=1e-10)


def test_the_whole_loss_and_its_gradients_are_those_of_the_formula():
    env, policy = env_and_policy(temperature=2.0, kd_weight=0.5, knowledge="response,hint(strength=3)")
    for _ in range(5):
        env.step(policy.act(None))
    run = env.distillation
    network = run.student.network
    theta = network.auxiliary_module.theta
    assert theta[0].std() > 1e-3, "importances have learned"
    loss = run.per_example_loss(policy.act(None))
    output, batch = run.student_output(), run.observe()
    pi = theta[0].softmax(0)
    mapped = torch.stack([output.projections["linear"][k] for k in range(4)])  # [K, B, D]
    targets = torch.stack(batch.teacher_features)
    hint = (torch.einsum("k,kbd->bd", pi, mapped) - torch.einsum("k,kbd->bd", pi, targets)).square().mean(1)
    log_q = (output.logits / 2.0).log_softmax(1)
    p = (batch.teacher_logits / 2.0).softmax(2)
    response = 4.0 * (p * (p.log() - log_q[:, None])).sum(2).mean(1)
    label = cross_entropy(output.logits, batch.labels, reduction="none")
    expected = 0.5 * label + 0.5 * response + 0.5 * 3.0 * hint
    torch.testing.assert_close(loss, expected, rtol=0, atol=1e-5)
    parameters = [theta, *network.network.parameters()]
    for own, reference in zip(
        torch.autograd.grad(loss.mean(), parameters, retain_graph=True), torch.autograd.grad(expected.mean(), parameters), strict=True
    ):
        torch.testing.assert_close(own, reference, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("task", "teachers", "student", "knowledge"),
    [
        (TEXT, "domains/experts", "tiny-bert(width=8,layers=2,dropout=0,bits=4)", "response,layer"),
        ("digits", "digits/experts", "mlp(width=8,depth=2,bits=4)", "response,feature_ensemble"),
    ],
)
def test_a_low_bit_student_and_the_importances_learn(task, teachers, student, knowledge):
    env, policy = env_and_policy(task, teachers, student=student, knowledge=knowledge, batch_size=8, updates=3, precision="float32")
    observation, before = None, env.distillation.student.network.auxiliary_module.theta.detach().clone()
    for _ in range(3):
        observation, *_ = env.step(policy.act(observation))
    assert not env.finished.diverged
    assert not torch.equal(env.finished.student.network.auxiliary_module.theta[0], before[0])


def test_students_are_compared_with_the_teachers_each_alone():
    env, policy = env_and_policy(knowledge="response,similarity,peer", num_students=2, batch_size=8, student="mlp(width=8)")
    penalty = policy.act(env.selection.observation()).penalty
    assert penalty.shape == (16,)
    first = torch.autograd.grad(penalty[:8].sum(), env.distillation.student.parameters)  # each [2, ...]
    assert max(float(gradient[0].abs().max()) for gradient in first) > 0.0
    assert max(float(gradient[1].abs().max()) for gradient in first) == 0.0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"knowledge": "response"}, "combines the features of one knowledge type, the setting has none; set knowledge=response,hint"),
        ({"knowledge": "response,hint,layer"}, "of one knowledge type, the setting has hint, layer"),
        ({"knowledge": "response,layer(grouped=true)"}, "leave grouped=true out"),
        ({"knowledge": "response,hint(skip_epochs=2)"}, "leave skip_epochs=2 out"),
    ],
)
def test_settings_that_it_cannot_combine_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        env_and_policy(**settings)


def test_teachers_of_different_shapes_are_refused():
    with pytest.raises(InputError, match=r"which have the shapes \[\d+\], .*; use teachers of one architecture"):
        env_and_policy(teachers="digits/capacity")
    with pytest.raises(InputError, match=r"combines the layers of teachers, which have the shapes \[.*; use teachers of one architecture"):
        env_and_policy(teachers="digits/capacity", knowledge="response,layer")


def test_shapes_that_are_known_before_the_first_update():
    shapes = TeacherShapes((8, 8), ((2, 8), (3, 8)), ((8, 2, 2), (8, 4, 4)), ({"stage2": (4, 3, 3)}, {"stage2": (5, 3, 3)}))
    for text, expected in (
        ("hint", {"features": [[8], [8]]}),
        ("layer", {"layers": [[2, 8], [3, 8]]}),
        ("map_hint", {"maps": [[8, 2, 2], [8, 4, 4]]}),
        ("attention_transfer(stages=last;stage2)", {"maps": [[8, 2, 2], [8, 4, 4]], "maps.stage2": [[4, 3, 3], [5, 3, 3]]}),
        ("attention_transfer(stages=all)", {}),
    ):
        (term,) = parse_terms(text)
        assert cmt_kd.known_shapes(term.knowledge, shapes) == expected
