"""One student and a population do the same, by the same names."""

import inspect

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from kd_env.models.encode import take
from kd_env.models.networks import build
from kd_env.student.optimizer import OptimizerOptions
from kd_env.student.population import Population
from kd_env.student.protocol import Students
from kd_env.student.student import Student

CPU = torch.device("cpu")
MEMBERS = [name for name in vars(Students) if not name.startswith("_")]


def students_of(data, count, first=0, optimizer="adam(lr=0.01)"):
    networks = [build("mlp(width=6)", data.task, first + s) for s in range(count)]
    options = OptimizerOptions.of(optimizer)
    return Student(networks[0], options, CPU, "float64") if count == 1 else Population(networks, options, CPU, "float64")


def teach(students, data, steps=3):
    for step in range(steps):
        rows = np.tile(np.arange(8 * step, 8 * step + 8), students.num_students)
        logits = students.forward(take(data.inputs["train"], rows, CPU)).logits
        students.step(cross_entropy(logits, data.labels["train"][rows], reduction="sum") / 8, step / steps)


@pytest.mark.parametrize("kind", [Student, Population])
def test_every_method_of_the_protocol_has_its_signature(kind):
    methods = [name for name in MEMBERS if inspect.isfunction(vars(Students)[name])]
    assert len(methods) > 10
    for name in methods:
        expected, actual = (inspect.signature(getattr(owner, name)) for owner in (Students, kind))
        assert actual.parameters == expected.parameters, name
        assert inspect.getdoc(getattr(Students, name)), name


@pytest.mark.parametrize("count", [1, 3])
def test_every_property_of_the_protocol_is_there(digits_data, count):
    students = students_of(digits_data, count)
    values = {name: getattr(students, name) for name in MEMBERS if isinstance(vars(Students)[name], property)}
    assert values["num_students"] == count
    assert values["dtype"] == torch.float64
    assert values["has_dropout"] is False
    assert {"network", "options", "device", "parameters"} <= values.keys()


@pytest.mark.parametrize("count", [1, 3])
def test_the_state_of_one_student_is_a_copy_that_a_lone_student_can_load(digits_data, count):
    students = students_of(digits_data, count)
    teach(students, digits_data)
    last = count - 1
    state = students.state_of(last)
    other = students_of(digits_data, 1, first=50)
    other.load_state(state)
    kept = {name: tensor.clone() for name, tensor in state.items()}
    teach(students, digits_data)
    assert all(torch.equal(state[name], kept[name]) for name in kept), "a copy"
    teach(other, digits_data)
    after = students.state_of(last)
    for name, tensor in other.state().items():
        torch.testing.assert_close(tensor, after[name], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("optimizer", ["adam(lr=0.01)", "sgd(lr=0.01)"])
@pytest.mark.parametrize("count", [1, 3])
def test_loading_a_state_copies_it(digits_data, count, optimizer):
    first, second, third = (students_of(digits_data, count, first=seed, optimizer=optimizer) for seed in (0, 50, 90))
    teach(first, digits_data)
    second.load_state(first.state())
    third.load_state(first.state())
    before = {name: tensor.clone() for name, tensor in second.state().items()}
    teach(first, digits_data)
    first.reset_student(0, build("mlp(width=6)", digits_data.task, 7))
    assert all(torch.equal(tensor, before[name]) for name, tensor in second.state().items()), "the students share nothing"
    teach(second, digits_data)
    teach(third, digits_data)
    assert all(torch.equal(tensor, third.state()[name]) for name, tensor in second.state().items())
    assert not all(torch.equal(tensor, before[name]) for name, tensor in second.state().items())


@pytest.mark.parametrize("count", [1, 3])
def test_a_reset_student_is_like_a_new_one(digits_data, count):
    students, fresh = students_of(digits_data, count), students_of(digits_data, 1, first=7)
    teach(students, digits_data)
    others = [students.state_of(s) for s in range(count - 1)]
    students.reset_student(count - 1, build("mlp(width=6)", digits_data.task, 7))
    assert all(torch.equal(students.state_of(s)[name], tensor) for s, state in enumerate(others) for name, tensor in state.items())
    assert students.state_of(count - 1).keys() == fresh.state().keys(), "no step has been taken"
    teach(students, digits_data)
    teach(fresh, digits_data)
    for name, tensor in fresh.state().items():
        torch.testing.assert_close(students.state_of(count - 1)[name], tensor, rtol=1e-9, atol=1e-12)
