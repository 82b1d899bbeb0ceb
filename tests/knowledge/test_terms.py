"""Terms: how the ``knowledge`` setting is parsed, and what it asks of bank and student."""

from dataclasses import dataclass

import pytest

from kd_env.errors import InputError
from kd_env.knowledge import KNOWLEDGE, Knowledge
from kd_env.knowledge.feature_ensemble import MLPProjector
from kd_env.knowledge.hint import Hint, LinearProjector
from kd_env.knowledge.layer import LayerProjector
from kd_env.knowledge.terms import Term, extra_outputs, parse_terms, projectors

BOTH = frozenset({"layers", "attention"})


@dataclass(frozen=True)
class Gap(Knowledge):
    """A plug-in: the squared distance of the first logit, times ``scale``."""

    scale: float = 1.0

    def target(self, teacher):
        return teacher.logits[:, 0]

    def loss(self, student, target):
        return self.scale * (student.logits[:, 0] - target).square()


class Unfit:
    """No Knowledge."""


class Refusing(Gap):
    """A type that cannot be built."""

    def __init__(self):
        raise ValueError("the moon is full")


class OtherProjector(LinearProjector):
    """A projector with a name of its own."""

    name = "other"


class Clashing(LinearProjector):
    """A projector with the name of another."""


class OtherHint(Hint):
    projector = OtherProjector


class ClashingHint(Hint):
    projector = Clashing


def test_types_have_names_options_and_strengths():
    response, layer, similarity = parse_terms("response, layer(strength=50,normalized=true),similarity(kind=angle,strength=.5)")
    assert (response.name, response.strength) == ("response", 1.0)
    assert response.knowledge == KNOWLEDGE["response"]()
    assert (layer.name, layer.strength, layer.knowledge.normalized) == ("layer", 50.0, True)
    assert (similarity.name, similarity.strength, similarity.knowledge.kind) == ("similarity", 0.5, "angle")


@pytest.mark.parametrize("name", KNOWLEDGE)
def test_every_built_in_type_can_be_named_alone(name):
    (term,) = parse_terms(name)
    assert term == Term(name, KNOWLEDGE[name](), 1.0)


def test_a_plug_in_is_named_by_module_and_class():
    name = f"{__name__}:Gap"
    response, plug_in = parse_terms(f"response,{name}(scale=2.5,strength=3)")
    assert (plug_in.name, plug_in.strength) == (name, 3.0)
    assert plug_in.knowledge == Gap(2.5)
    assert response.name == "response"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("respnse", "unknown knowledge type 'respnse'; did you mean 'response'"),
        ("response,xyz", "unknown knowledge type 'xyz'; known: attention, attention_transfer, consistent_surrogate"),
        ("", "knowledge='': name at least one type"),
        (" , ", "name at least one type"),
        ("response,response", "knowledge='response,response': response is named twice"),
        ("layer,layer(normalized=true)", "layer is named twice"),
        ("label", "leave out label; the hard label is always part of the loss with kd_weight below 1"),
        ("response,label(strength=0.5)", "leave out label; the hard label is always"),
        ("response(strength=0)", "strength=0 of response must be a number above 0; to turn a type off, leave it out"),
        ("response(strength=-1)", "strength=-1 of response"),
        ("response(strength=strong)", "strength='strong' of response"),
        ("response(strength=true)", "strength=True of response"),
        ("response(strength=1e999)", "strength=inf of response"),
        ("response(strength=nan)", "strength='nan' of response"),
        ("response(strenght=1)", r"knowledge 'response\(strenght=1\)': .*strenght"),
        ("layer(normalised=true)", "normalised.*options: normalized"),
        ("similarity(kind=cosine)", "kind must be one of distance, angle, preserving"),
        ("response(strength=1,strength=2)", "strength is given twice"),
        ("response(strength=1", "expected name"),
        ("response(1)", "expected key=value"),
        ("nowhere:Type", "knowledge type 'nowhere:Type' cannot be imported"),
        (f"{__name__}:Nothing", "cannot be imported"),
        (f"{__name__}:Unfit", "a Unfit is not a kd_env.knowledge.Knowledge; subclass it"),
        (f"{__name__}:Refusing", r"ValueError: the moon is full \(.*test_terms\.py, line \d+\); fix it there"),
        (f"{__name__}:Gap(size=1)", "size.*options: scale"),
    ],
)
def test_what_cannot_be_read_is_named(text, says):
    with pytest.raises(InputError, match=says):
        parse_terms(text)


def test_extra_outputs_are_those_that_the_types_compare():
    assert extra_outputs(parse_terms("response,tckd,nckd,contrast,similarity")) == frozenset()
    assert extra_outputs(parse_terms("response,relation")) == extra_outputs(parse_terms("layer")) == {"layers"}
    assert extra_outputs(parse_terms("attention")) == {"attention"}
    assert extra_outputs(parse_terms("attention,layer,relation")) == BOTH


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("response,relation,attention,similarity,peer", []),
        ("hint", [LinearProjector]),
        ("prior_surrogate,hint(normalized=true),consistent_surrogate", [LinearProjector]),
        ("feature_ensemble,hint,layer(grouped=true)", [LayerProjector, LinearProjector, MLPProjector]),
        (f"{__name__}:OtherHint,feature_ensemble,layer", [LayerProjector, MLPProjector, OtherProjector]),
    ],
)
def test_projectors_are_created_once_and_in_one_order(text, expected):
    assert projectors(parse_terms(text)) == expected


def test_two_projectors_of_one_name_are_refused():
    says = r"knowledge type hint: projectors LinearProjector and Clashing are both named 'linear'; give one of them another name"
    with pytest.raises(InputError, match=says):
        projectors(parse_terms(f"hint,{__name__}:ClashingHint"))
