"""How students are built, and what is refused before anything is taught."""

import pytest
import torch

from kd_env.distillation import Distillation
from kd_env.distillation.settings import distillation_settings
from kd_env.errors import InputError
from kd_env.knowledge.terms import parse_terms
from kd_env.models.networks import build
from kd_env.student.build import StudentConfig, build_network
from kd_env.student.population import Population
from kd_env.student.student import Student

BERT = "tiny-bert(width=8,layers=1,dropout=0)"


def start(data, **keywords):
    return Distillation(data, distillation_settings(data.task, **{"batch_size": 4, "updates": 3} | keywords), 6)


@pytest.mark.parametrize("knowledge", ["tckd", "response,nckd", "tckd,nckd"])
@pytest.mark.parametrize("students", [1, 2])
def test_types_that_read_labels_are_refused_where_there_are_none(digits_data, knowledge, students):
    named = next(name for name in knowledge.split(",") if name != "response")
    says = rf"knowledge='{knowledge}': {named} reads the training labels, which this setting does not use \(kd_weight=1\); leave it out"
    with pytest.raises(InputError, match=says):
        start(digits_data, knowledge=knowledge, kd_weight=1.0, num_students=students)
    run = start(digits_data, knowledge=knowledge, kd_weight=0.9, num_students=students)
    assert list(run.loss.terms) == knowledge.split(",")


@pytest.mark.parametrize("students", [1, 2])
def test_types_around_the_teacher_s_class_need_no_labels(digits_data, students):
    run = start(digits_data, knowledge="tckd(class_of=teacher),nckd(class_of=teacher)", kd_weight=1.0, num_students=students)
    assert not run.settings.uses_hard_labels
    losses = run.per_teacher_loss("tckd", 2.0)
    assert losses.shape == (4 * students, 4)
    assert losses.isfinite().all()


@pytest.mark.parametrize(("knowledge", "named"), [("attention", "attention"), ("response,layer,attention(values=false)", "attention")])
@pytest.mark.parametrize("students", [1, 2])
def test_attention_is_refused_with_a_student_that_has_none(digits_data, knowledge, named, students):
    with pytest.raises(InputError, match=rf"student 'mlp\(width=8\)' has no attention, which {named} compares; leave {named} out"):
        start(digits_data, knowledge=knowledge, student="mlp(width=8)", num_students=students)


def test_several_seeds_make_a_population_and_one_a_student(digits_data):
    alone, population = start(digits_data), start(digits_data, num_students=3)
    assert isinstance(alone.student, Student)
    assert isinstance(population.student, Population)
    assert population.seeds.tolist() == [6, 7, 8]
    for s in range(3):
        expected = torch.cat([parameter.flatten() for parameter in build(alone.settings.student, digits_data.task, 6 + s).parameters()])
        assert torch.equal(population.student.theta[s], expected)


def test_a_network_has_maps_where_a_type_projects_and_nowhere_else(layered_data):
    def names(knowledge):
        config = StudentConfig(BERT, "adam", parse_terms(knowledge), layered_data.bank.shapes)
        example = {name: tensor[:1] for name, tensor in layered_data.inputs["train"].items()}
        network = build_network(layered_data.task, config, example, 0)
        assert network.training
        return {name for name, _ in network.named_parameters() if "." not in name}

    assert names("response") == names("response,relation,attention") == set()
    assert names("layer") == names("response,layer,attention") == {"map0", "map1", "map2"}
