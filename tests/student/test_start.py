"""How students begin, and what is refused before anything is taught."""

import pytest
import torch

from kd_env.distillation import Distillation
from kd_env.errors import InputError
from kd_env.knowledge.terms import parse_terms
from kd_env.settings import settings
from kd_env.student.networks import build
from kd_env.student.population import Population
from kd_env.student.start import network
from kd_env.student.student import Student

BERT = "tiny-bert(width=8,layers=1,dropout=0)"


def start(material, **keywords):
    return Distillation(material, settings(material.task, **{"batch_size": 4, "updates": 3} | keywords), 6)


@pytest.mark.parametrize("knowledge", ["tckd", "response,nckd", "tckd,nckd"])
@pytest.mark.parametrize("students", [1, 2])
def test_types_that_read_labels_are_refused_where_there_are_none(digits_material, knowledge, students):
    named = next(name for name in knowledge.split(",") if name != "response")
    says = rf"knowledge='{knowledge}': {named} reads the training labels, which are not part of this setting \(strength=1\); leave it out"
    with pytest.raises(InputError, match=says):
        start(digits_material, knowledge=knowledge, strength=1.0, num_students=students)
    run = start(digits_material, knowledge=knowledge, strength=0.9, num_students=students)
    assert list(run.terms) == knowledge.split(",")


@pytest.mark.parametrize("students", [1, 2])
def test_types_around_the_teacher_s_class_need_no_labels(digits_material, students):
    run = start(digits_material, knowledge="tckd(class_of=teacher),nckd(class_of=teacher)", strength=1.0, num_students=students)
    assert not run.reads_labels
    losses = run.losses("tckd", 2.0)
    assert losses.shape == (4 * students, 4)
    assert losses.isfinite().all()


@pytest.mark.parametrize(("knowledge", "named"), [("attention", "attention"), ("response,feature,attention(values=false)", "attention")])
@pytest.mark.parametrize("students", [1, 2])
def test_attention_is_refused_with_a_student_that_has_none(digits_material, knowledge, named, students):
    with pytest.raises(InputError, match=rf"student 'mlp\(width=8\)' shows no attention, which {named} compares"):
        start(digits_material, knowledge=knowledge, student="mlp(width=8)", num_students=students)


def test_several_seeds_make_a_population_and_one_a_student(digits_material):
    one, many = start(digits_material), start(digits_material, num_students=3)
    assert isinstance(one.student, Student)
    assert isinstance(many.student, Population)
    assert many.seeds.tolist() == [6, 7, 8]
    for s in range(3):
        expected = torch.cat([leaf.flatten() for leaf in build(one.settings.student, digits_material.task, 6 + s).parameters()])
        assert torch.equal(many.student.theta[s], expected)


def test_a_network_has_maps_where_a_type_projects_and_nowhere_else(layered_material):
    def names(knowledge):
        options = settings(layered_material.task, student=BERT, knowledge=knowledge)
        example = {name: tensor[:1] for name, tensor in layered_material.inputs["train"].items()}
        made = network(layered_material.task, layered_material.bank, example, options, parse_terms(knowledge), 0)
        assert made.training
        return {name for name, _ in made.named_parameters() if "." not in name}

    assert names("response") == names("response,relation,attention") == set()
    assert names("feature") == names("response,feature,attention") == {"map0", "map1", "map2"}
