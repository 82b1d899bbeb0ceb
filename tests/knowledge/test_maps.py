"""Knowledge of feature maps: values by hand, the released formulas, the regressors, and runs on a bank that keeps maps."""

import dataclasses

import numpy as np
import pytest
import torch
from comparing import draw, loss_of, output_of
from torch import nn
from torch.nn.functional import adaptive_avg_pool2d, interpolate, normalize

from kd_env.bank.bank import open_bank
from kd_env.distillation import Distillation, EncodedTask
from kd_env.distillation.reward_meter import RewardMeter
from kd_env.distillation.settings import distillation_settings
from kd_env.envs import credit
from kd_env.errors import InputError
from kd_env.knowledge.attention_transfer import AttentionTransfer
from kd_env.knowledge.map_hint import MapHint, MapProjector
from kd_env.knowledge.map_projector import resized
from kd_env.models.networks import build
from kd_env.teachers import NetworkTeacher, Pool
from kd_env.types import Decision, ModelOutput, TeacherShapes


def test_a_map_hint_by_hand():
    student, teacher = [[[[1.0, 2.0]], [[0.0, 0.0]]]], [[[[3.0, 2.0]], [[0.0, -4.0]]]]  # two channels of one row
    assert loss_of(MapHint(), student, teacher).tolist() == [5.0]  # (4 + 0 + 0 + 16) / 4


def test_attention_transfer_by_hand():
    student, teacher = [[[[3.0, 0.0]], [[0.0, 0.0]]]], [[[[0.0, 1.0]]]]
    assert loss_of(AttentionTransfer(), student, teacher).tolist() == pytest.approx([1.0])  # (1, 0) and (0, 1): (1 + 1) / 2
    same = [[[[6.0, 8.0]], [[6.0, 8.0]]]]
    assert loss_of(AttentionTransfer(), same, [[[[3.0, 4.0]]]]).tolist() == pytest.approx([0.0], abs=1e-15)


def released_attention(student, teacher):
    """The loss of the released code for two batches of maps, written out again."""
    height, other = student.shape[2], teacher.shape[2]
    if height > other:
        student = adaptive_avg_pool2d(student, (other, other))
    elif height < other:
        teacher = adaptive_avg_pool2d(teacher, (height, height))
    attention = [normalize(maps.pow(2).mean(1).flatten(1)) for maps in (student, teacher)]
    return (attention[0] - attention[1]).pow(2).mean()


@pytest.mark.parametrize("sides", [(4, 4), (8, 4), (4, 8)])
def test_attention_transfer_is_the_released_loss(sides):
    student, teacher = draw(5, 3, sides[0], sides[0]), draw(5, 6, sides[1], sides[1], seed=1)
    loss = loss_of(AttentionTransfer(), student, teacher).mean()
    torch.testing.assert_close(loss, released_attention(student, teacher), rtol=1e-9, atol=0.0)


class Camera(nn.Module):
    """Returns its input as the last map."""

    def forward(self, maps, extra_outputs=frozenset()):
        return ModelOutput(maps.mean((2, 3)), maps.mean((2, 3)), maps=maps if "maps" in extra_outputs else None)


def test_regressors_are_a_convolution_with_bias_batch_norm_and_relu_at_the_teacher_s_size():
    maps = torch.randn(6, 3, 4, 4)
    teachers = TeacherShapes((5, 2, 4), maps=((5, 4, 4), (2, 2, 2), (4, 8, 8)))
    network = MapProjector(Camera(), Camera()(maps[:1], frozenset({"maps"})), teachers)
    assert [type(layer) for layer in network.regressors[0]] == [nn.Conv2d, nn.BatchNorm2d, nn.ReLU]
    assert network.regressors[0][0].bias is not None
    assert network(maps=maps).projections == {}, "nothing is mapped that was not asked for"
    mapped = network(maps=maps, extra_outputs=frozenset({"maps"})).projections["maps"]
    assert [tuple(part.shape) for part in mapped] == [(6, 5, 4, 4), (6, 2, 2, 2), (6, 4, 8, 8)]
    pooled = [maps, adaptive_avg_pool2d(maps, 2), interpolate(maps, (8, 8), mode="bilinear", align_corners=False)]
    for regressor, part, values in zip(network.regressors, mapped, pooled, strict=True):
        convolved = regressor[0](values)
        mean, variance = convolved.mean((0, 2, 3), keepdim=True), convolved.var((0, 2, 3), correction=0, keepdim=True)
        torch.testing.assert_close(part, ((convolved - mean) / (variance + 1e-5).sqrt()).relu(), rtol=1e-4, atol=1e-5)
    output = network(maps=maps, extra_outputs=frozenset({"maps"}))
    assert MapProjector.for_teacher(output, 1).maps.shape == (6, 2, 2, 2)


def test_a_map_is_interpolated_if_one_side_is_smaller():
    maps = torch.arange(8.0).view(1, 1, 2, 4)
    assert resized(maps, (2, 4)) is maps
    assert resized(maps, (1, 2)).flatten().tolist() == [2.5, 4.5]
    assert resized(maps, (4, 2)).shape == (1, 1, 4, 2)


@pytest.fixture(scope="module")
def mapped_data(digits_data):
    """Some digits with two untrained teachers with maps of other sizes and numbers of channels."""
    task = digits_data.task
    few = dataclasses.replace(task, train=task.train.take(np.arange(64)), reward=task.reward.take(np.arange(40)))
    networks = ("resnet8(width=3)", "mobilenetv2(width=0.1)")
    teachers = tuple(NetworkTeacher(f"teacher{k}", build(text, few, k), few, logit_scale=4.0) for k, text in enumerate(networks))
    return EncodedTask.of(few, open_bank(few, Pool("mapped", teachers), keep=frozenset({"maps"}))), teachers


def start(data, knowledge, seed=0, **keywords):
    settings = {"student": "resnet8(width=2)", "batch_size": 8, "updates": 40, "optimizer": "sgd(lr=0.02)", **keywords}
    return Distillation(data, distillation_settings(data.task, knowledge=knowledge, **settings), seed)


def weights_of(run):
    rows = run.num_students * run.settings.batch_size
    return dict.fromkeys(run.loss.terms, torch.full((rows, run.num_teachers), 1.0 / run.num_teachers, dtype=run.student.dtype))


def teach(run, updates):
    losses = []
    for _ in range(updates):
        run.observe()
        strengths = {name: term.strength for name, term in run.loss.terms.items()}
        losses.append(float(run.apply(Decision(weights_of(run), strengths, 2.0)).loss[0]))
    return losses


def test_a_bank_keeps_maps_of_train_alone(mapped_data):
    data, teachers = mapped_data
    assert data.bank.shapes.maps == ((12, 2, 2), (1280, 1, 1))
    kept = data.bank.gather("train", np.array([3, 5]), frozenset({"maps"})).maps
    expected = [teacher(data.task.train.inputs[[3, 5]]).maps for teacher in teachers]
    for part, maps in zip(kept, expected, strict=True):
        np.testing.assert_allclose(part, maps.numpy(), rtol=1e-4, atol=1e-5)
    assert {path.name.split(".")[0] for path in data.bank.directory.glob("*.maps.*.npy")} == {"train"}
    features = data.bank.gather("train", np.array([3, 5])).features
    np.testing.assert_allclose(kept[0].mean((2, 3)), features[0], rtol=1e-4, atol=1e-5)


def test_the_loss_of_a_run_is_the_reference(mapped_data):
    """One update with both types equals the formulas written out for the same tensors."""
    data, _ = mapped_data
    run = start(data, "map_hint(strength=50),attention_transfer(strength=500)", precision="float64")
    batch, output = run.observe(), run.student_output()
    projected = output.projections["maps"]
    hints = torch.stack([((projected[k] - batch.teacher_maps[k]) ** 2).flatten(1).mean(1) for k in range(2)], 1)
    torch.testing.assert_close(run.per_teacher_loss("map_hint", 2.0), hints)
    transfers = [released_attention(output.maps, batch.teacher_maps[k]) for k in range(2)]
    torch.testing.assert_close(run.per_teacher_loss("attention_transfer", 2.0).mean(0), torch.stack(transfers), rtol=1e-5, atol=1e-5)
    expected = (50 * hints.mean() + 500 * torch.stack(transfers).mean()).detach()
    assert teach(run, 1)[0] == pytest.approx(float(expected), rel=1e-5)


def test_a_student_learns_from_maps_and_its_regressors_learn_with_it(mapped_data):
    data, _ = mapped_data
    run = start(data, "map_hint(strength=5)")
    before = [parameter.clone() for parameter in run.student.parameters]
    losses = teach(run, 40)
    assert np.mean(losses[-8:]) < 0.7 * np.mean(losses[:8])
    changed = [not torch.equal(old, new) for old, new in zip(before, run.student.parameters, strict=True)]
    names = [name for name, _ in run.student.network.named_parameters()]
    assert all(changed[k] for k, name in enumerate(names) if "regressors" in name or "stage" in name)
    norm = run.student.network.regressors[0][1]
    assert norm.num_batches_tracked == 40, "the regressors' statistics move once in each update"


def test_epochs_can_be_skipped(mapped_data):
    data, _ = mapped_data
    skipping, plain = start(data, "response,map_hint(skip_epochs=2)"), start(data, "response,map_hint")
    response = [start(data, "response")]
    losses = teach(skipping, 17)  # 64 examples: 8 updates are an epoch
    assert losses[:16] == pytest.approx(teach(response[0], 16), rel=1e-5), "as without maps"
    assert losses[0] < teach(plain, 1)[0]
    assert losses[16] - losses[15] > 0.05, "from the third epoch on, the maps count"
    for text in ("map_hint(skip_epochs=-1)", "map_hint(skip_epochs=1.5)", "map_hint(skip_epochs=x)"):
        with pytest.raises(InputError, match="skip_epochs"):
            start(data, text)


def test_a_run_with_maps_is_restored_to_the_bit(mapped_data):
    data, _ = mapped_data
    run = start(data, "response,map_hint,attention_transfer")
    teach(run, 3)
    run.observe()
    state = run.snapshot()
    losses = teach(run, 4)
    other = start(data, "response,map_hint,attention_transfer", seed=7)
    other.restore(state)
    assert teach(other, 4) == losses
    assert all(torch.equal(value, other.student.state()[name]) for name, value in run.student.state().items())


def test_first_order_credit_of_maps_is_the_derivative(mapped_data):
    data, _ = mapped_data
    run = start(data, "response,map_hint", optimizer="sgd(lr=0.00001)", precision="float64")
    teach(run, 2)
    meter = RewardMeter(run.reward_split, run.seeds.tolist(), 20, measure="loss")
    values, exact = (credit.CREDITS[name](run, meter, ["map_hint"])["map_hint"] for name in ("first_order", "counterfactual"))
    assert values.any()
    torch.testing.assert_close(values, exact, rtol=0.02, atol=0.02 * float(exact.abs().max()))


@pytest.mark.parametrize("knowledge", ["map_hint", "attention_transfer"])
def test_a_student_without_maps_is_refused(mapped_data, digits_data, knowledge):
    data, _ = mapped_data
    with pytest.raises(InputError, match=f"student 'mlp' has no maps, which {knowledge} compares; leave {knowledge} out"):
        start(data, knowledge, student="mlp")


def test_a_teacher_without_maps_is_refused(digits_data):
    task = digits_data.task
    pool = Pool("flat", (NetworkTeacher("flat", build("mlp", task, 0), task),))
    with pytest.raises(InputError, match="teacher 'flat' has no maps; leave out the knowledge types that compare it"):
        open_bank(task, pool, keep=frozenset({"maps"}))


def test_a_population_is_refused_for_its_batch_norm(mapped_data):
    data, _ = mapped_data
    with pytest.raises(InputError, match=r"num_students: .*BatchNorm2d, which mixes the examples of a batch; .* or num_students=1"):
        start(data, "map_hint", num_students=2)


def test_outputs_of_zero_have_finite_gradients():
    maps = torch.zeros(2, 3, 2, 2, requires_grad=True)
    loss = AttentionTransfer().loss(output_of(maps=maps), draw(2, 3, 2, 2, dtype=torch.float32))
    (gradient,) = torch.autograd.grad(loss.sum(), maps)
    assert gradient.isfinite().all()
