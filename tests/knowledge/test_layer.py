"""Layers: values worked out by hand, groups, and the projector: shapes, learning, and that maps travel with the student."""

import numpy as np
import pytest
import torch
from comparing import loss_of, random_output
from torch import nn

from kd_env import tasks
from kd_env.bank.bank import open_bank
from kd_env.distillation import Distillation, EncodedTask
from kd_env.distillation.settings import distillation_settings
from kd_env.knowledge.layer import Layer, LayerProjector, last_of_group
from kd_env.models.networks import build
from kd_env.student.student import Student
from kd_env.teachers import NetworkTeacher, Pool
from kd_env.types import Decision, ModelOutput, TeacherShapes

LAYERS = frozenset({"layers"})
BERT = "tiny-bert(width=6,layers=1,heads=2,dropout=0)"  # shows two layers: what goes in and what comes out


class Echo(nn.Module):
    """Returns its input as layers."""

    def __init__(self):
        super().__init__()
        self.classifier = nn.Linear(2, 3)

    def forward(self, layers, extra_outputs=frozenset()):
        return ModelOutput(self.classifier(layers[:, -1]), layers[:, -1], layers if "layers" in extra_outputs else None)


def projector(teachers):
    """A projector of three layers of width 2 to ``(L_k, D_k)``."""
    network, shapes = Echo(), TeacherShapes(tuple(width for _, width in teachers), tuple(teachers))
    return LayerProjector(network, network(torch.zeros(1, 3, 2), LAYERS), shapes)


def start(data, seed=0, **keywords):
    keywords = {"student": BERT, "knowledge": "response,layer", "batch_size": 4, "updates": 20, "precision": "float64"} | keywords
    return Distillation(data, distillation_settings(data.task, **keywords), seed)


def taught_by(run, *teachers, name="layer"):
    """All of the loss from ``name`` of some teachers alike."""
    weights = torch.zeros(run.num_students * run.settings.batch_size, run.num_teachers, dtype=run.student.dtype)
    weights[:, teachers] = 1.0 / len(teachers)
    return Decision({name: weights}, {name: 1.0}, 1.0)


def maps(run):
    return {name: parameter for name, parameter in run.student.network.named_parameters() if name.startswith("map")}


def test_layer_by_hand():
    student, teacher = [[[1.0, 2.0], [3.0, 4.0]]], [[[0.0, 0.0], [1.0, 1.0]]]
    assert loss_of(Layer(), student, teacher).tolist() == pytest.approx([4.5])  # (1 + 4 + 4 + 9) / 4


def test_normalized_layer_by_hand():
    student, teacher = [[[3.0, 4.0], [0.0, 2.0]]], [[[1.0, 0.0], [0.0, 5.0]]]
    # (3/5, 4/5) - (1, 0): 4/25 + 16/25 = .8; the second layers have one direction
    assert loss_of(Layer(normalized=True), student, teacher).tolist() == pytest.approx([0.4])


def test_normalized_layers_are_compared_by_direction():
    student, teacher, kind = random_output().layers, random_output(seed=10).layers, Layer(normalized=True)
    lengths = torch.rand(5, 3, 1, generator=torch.Generator().manual_seed(0)).double()
    torch.testing.assert_close(loss_of(kind, student * lengths, teacher), loss_of(kind, student, teacher))


def test_the_last_layers_of_groups():
    # of 4 layers in 3 groups: 1 and 2 (up to 4/3 and 8/3, rounded up), then the last
    ends = [[last_of_group(k, 3, depth) for k in range(3)] for depth in (1, 2, 3, 4, 7)]
    assert ends == [
        [0, 0, 0],
        [0, 1, 1],
        [0, 1, 2],
        [1, 2, 3],
        [2, 4, 6],
    ]
    assert [last_of_group(0, 1, depth) for depth in (1, 5)] == [0, 4]


@pytest.mark.parametrize("students", [1, 2])
def test_grouped_layers_face_the_last_layer_of_each_teacher(layered_data, students):
    student = "tiny-bert(width=8,layers=3,heads=2,dropout=0)"  # shows four layers; the teachers show 2, 4 and 3
    run = start(layered_data, student=student, knowledge="layer(grouped=true)", num_students=students)
    batch, output = run.observe(), run.student_output()
    losses = run.per_teacher_loss("layer", 1.0)
    for k, layer in enumerate((0, 2, 2)):  # of 2, 4 and 3 mapped layers the first group's, the second's and the third's
        expected = (output.projections["layers"][k][:, layer] - batch.teacher_layers[k][:, -1]).square().mean(1)
        torch.testing.assert_close(losses[:, k], expected)


def test_layers_are_mapped_by_hand():
    network = projector([(3, 1), (2, 4), (5, 2)])
    assert [tuple(network.get_parameter(f"map{k}").shape) for k in range(3)] == [(3, 2, 1), (2, 2, 4), (3, 2, 2)]
    with torch.no_grad():
        network.map0.copy_(torch.tensor([[[1.0], [0.0]], [[0.0], [1.0]], [[2.0], [-1.0]]]))
        network.map1.copy_(torch.stack([torch.ones(2, 4), torch.full((2, 4), 10.0)]))
    layers = torch.tensor([[[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]])
    output = network(layers=layers, extra_outputs=LAYERS)
    assert [tuple(mapped.shape) for mapped in output.projections["layers"]] == [(1, 3, 1), (1, 2, 4), (1, 3, 2)]
    assert output.projections["layers"][0].flatten().tolist() == [1.0, 4.0, 2 * 5.0 - 6.0]
    assert output.projections["layers"][1].tolist() == [[[3.0] * 4, [110.0] * 4]], "the first layer and the last"
    assert torch.equal(output.layers, layers)
    assert network.classifier is network.network.classifier


def test_without_layers_nothing_is_mapped():
    network = projector([(3, 1)])
    layers = torch.ones(4, 3, 2)
    assert network(layers=layers).projections == {}
    assert torch.equal(network(layers=layers).logits, network(layers=layers, extra_outputs=LAYERS).logits)
    assert network(layers=layers).layers is None


def test_a_student_has_a_map_for_each_layer_and_teacher(layered_data):
    run = start(layered_data)
    assert [layered_data.bank.shape("layers", k) for k in range(3)] == [(2, 16), (4, 8), (3, 12)]
    assert {name: tuple(parameter.shape) for name, parameter in maps(run).items()} == {
        "map0": (2, 6, 16),
        "map1": (2, 6, 8),
        "map2": (2, 6, 12),
    }
    deep = start(layered_data, student="tiny-bert(width=6,layers=4,heads=2,dropout=0)")  # shows five
    assert [parameter.shape[0] for parameter in maps(deep).values()] == [2, 4, 3]
    output = run.student_output()
    assert [tuple(mapped.shape) for mapped in output.projections["layers"]] == [(4, 2, 16), (4, 2, 8), (4, 2, 12)]
    batch = run.observe()
    losses = run.per_teacher_loss("layer", 1.0).detach()
    teachers = [batch.teacher_layers[0], batch.teacher_layers[1][:, [0, 3]], batch.teacher_layers[2][:, [0, 2]]]
    for k in range(3):
        mapped = torch.einsum("bld,lde->ble", output.layers, maps(run)[f"map{k}"]).detach()
        torch.testing.assert_close(losses[:, k], (mapped - teachers[k]).square().mean((1, 2)), rtol=1e-10, atol=0)


def test_maps_follow_from_the_seed_and_leave_the_network_as_it_is(layered_data):
    run, again, other = start(layered_data, 3), start(layered_data, 3), start(layered_data, 4)
    plain = build(BERT, layered_data.task, 3).double().state_dict()
    assert all(torch.equal(run.student.network.network.state_dict()[name], value) for name, value in plain.items())
    for name, parameter in maps(run).items():
        assert torch.equal(parameter, maps(again)[name])
        assert not torch.equal(parameter, maps(other)[name])
    before = torch.get_rng_state()
    start(layered_data, 3)
    assert torch.equal(torch.get_rng_state(), before)


def test_mapped_layers_keep_their_size(layered_data):
    """Entries of variance 1 over the width: what is mapped is about as large as what it is mapped from."""
    run = start(layered_data, student="tiny-bert(width=64,layers=1,heads=2,dropout=0)")
    assert float(maps(run)["map0"].detach().square().mean()) * 64 == pytest.approx(1.0, rel=0.1)


def test_maps_learn_for_the_teachers_that_teach(layered_data):
    run = start(layered_data, optimizer="sgd(lr=0.05)")
    before = {name: parameter.detach().clone() for name, parameter in maps(run).items()}
    rows = run.observe().example_ids
    first = float(run.per_teacher_loss("layer", 1.0)[:, 1].detach().mean())
    for _ in range(12):
        run.apply(taught_by(run, 1))
    moved = {name: float((parameter.detach() - before[name]).abs().max()) for name, parameter in maps(run).items()}
    assert moved["map1"] > 0.01
    assert moved["map0"] == moved["map2"] == 0.0
    run.update[:] = 0  # the first mini-batch again
    assert (run.observe().example_ids == rows).all()
    assert float(run.per_teacher_loss("layer", 1.0)[:, 1].detach().mean()) < 0.8 * first
    held = [parameter.detach().clone() for parameter in maps(run).values()]
    run.apply(taught_by(start(layered_data), 0, 1, 2, name="response"))
    moved = [float((parameter.detach() - before).abs().max()) for parameter, before in zip(maps(run).values(), held, strict=True)]
    assert moved[1] > 0, "momentum goes on"
    assert moved[0] == moved[2] == 0.0, "the response has no use for maps"


@pytest.mark.parametrize("students", [1, 2])
def test_maps_are_part_of_a_snapshot(layered_data, students):
    run = start(layered_data, num_students=students)
    for _ in range(3):
        run.apply(taught_by(run, 0, 1, 2))
    state = run.snapshot()
    other = start(layered_data, 8, num_students=students)
    other.restore(state)
    for continued in (run, other):
        for _ in range(3):
            continued.apply(taught_by(continued, 0, 1, 2))
    state, restored = run.student.state(), other.student.state()
    assert all(torch.equal(state[name], restored[name]) for name in state)
    names = state if students == 1 else run.student.state_of(0)
    assert {"network.map0", "network.map1", "network.map2"} <= set(names)
    assert sum(name.startswith("optimizer.") for name in names) == 3 * len(list(run.student.network.parameters())), "Adam's, of each"


def test_students_of_a_population_have_maps_of_their_own(layered_data):
    run = start(layered_data, num_students=2, optimizer="adam(lr=0.003)")
    apart = [start(layered_data, seed, optimizer="adam(lr=0.003)") for seed in (0, 1)]
    drawn = run.student.state_of(0)["network.map2"]
    for _ in range(15):
        run.apply(taught_by(run, 0, 2))
        for alone in apart:
            alone.apply(taught_by(alone, 0, 2))
    for s, alone in enumerate(apart):
        for name, parameter in maps(alone).items():
            torch.testing.assert_close(run.student.state_of(s)[f"network.{name}"], parameter.detach(), rtol=1e-7, atol=1e-10)
    assert (run.student.state_of(0)["network.map2"] - drawn).abs().max() > 0.01
    assert not torch.equal(run.student.state_of(0)["network.map2"], run.student.state_of(1)["network.map2"])
    member = run.of_student(1)
    assert isinstance(member.student, Student)
    assert torch.equal(maps(member)["map1"].detach(), run.student.state_of(1)["network.map1"])


@pytest.mark.parametrize("student", ["mlp(width=5,depth=2)", "tiny-vit(width=6,layers=1)"])
def test_image_students_are_mapped_too(student):
    task = tasks.load("digits")
    networks = {"wide": "mlp(width=9,depth=3)", "flat": "mlp(width=4)"}
    teachers = tuple(NetworkTeacher(name, build(text, task, 0), task) for name, text in networks.items())
    data = EncodedTask.of(task, open_bank(task, Pool("layered", teachers), keep=LAYERS))
    run = start(data, student=student, num_students=2)
    before, _ = run.validate()
    for _ in range(5):
        outcome = run.apply(taught_by(run, 0, 1))
    assert np.isfinite(outcome.loss).all()
    width = run.observe().student.features.shape[1]
    assert [tuple(run.student.state_of(0)[f"network.map{k}"].shape) for k in range(2)] == [(2, width, 9), (1, width, 4)]
    assert (run.validate()[0] != before).any(), "the layers have moved, not the maps alone"
