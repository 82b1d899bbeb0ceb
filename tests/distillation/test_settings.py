"""Keywords and specs: what is wrong is said in one line that names the mend."""

import dataclasses
import typing

import pytest

from kd_env import spec, tasks
from kd_env.envs.settings import Settings, settings
from kd_env.errors import InputError
from kd_env.spec import Spec

NAMES = [field.name for field in dataclasses.fields(Settings)]


@pytest.fixture(scope="module")
def task():
    return tasks.load("digits")


def test_defaults_are_the_task_s(task):
    made = settings(task)
    defaults = task.defaults
    for name in ("student", "updates", "kd_weight", "temperature", "optimizer"):
        assert getattr(made, name) == getattr(defaults, name)
    assert settings(dataclasses.replace(task, defaults=dataclasses.replace(defaults, updates=7))).updates == 7


def test_none_means_the_default(task):
    assert settings(task, **dict.fromkeys(NAMES)) == settings(task)


def test_every_field_is_a_keyword_and_is_documented():
    for name in NAMES:
        assert f"\n        {name}: " in Settings.__doc__, name


def test_settings_cannot_be_changed(task):
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings(task).updates = 3


def test_whole_numbers_serve_as_floats_and_become_floats(task):
    made = settings(task, kd_weight=1, temperature=2)
    assert type(made.kd_weight) is type(made.temperature) is float


@pytest.mark.parametrize(
    ("typed", "meant"), [("update", "updates"), ("temprature", "temperature"), ("rewards", "reward"), ("observe_label", "observe_labels")]
)
def test_an_unknown_keyword_is_answered_with_the_nearest(task, typed, meant):
    with pytest.raises(InputError, match=f"unknown setting '{typed}'; did you mean '{meant}'"):
        settings(task, **{typed: 1})


def test_a_keyword_like_no_other_is_answered_with_all(task):
    with pytest.raises(InputError, match=r"unknown setting 'zzzzzz'; known: action, auxiliary_module, batch_size, .*validation_every"):
        settings(task, zzzzzz=1)


KINDS = {int: ["3", 3.0, True, [3]], float: ["x", True, [0.5]], str: [1, 0.5, True], bool: [1, "yes", 0.0]}
"""For each type, values that are not of it."""


@pytest.mark.parametrize("name", NAMES)
def test_values_of_another_type_are_refused_by_name(task, name):
    kind = typing.get_type_hints(Settings)[name]
    wrong = ["nonsense", 3, True] if typing.get_origin(kind) is typing.Literal else KINDS[kind]
    for value in wrong:
        with pytest.raises(InputError, match=f"^{name}=.*expected"):
            settings(task, **{name: value})


RANGES = {
    "updates": (1, [0, -1]),
    "batch_size": (1, [0, -4]),
    "credit_refresh": (1, [0]),
    "reward_examples": (1, [0]),
    "num_students": (1, [0, -2]),
    "updates_per_phase": (1, [0, -1]),
    "reward_every": (0, [-1]),
    "reward_labels": (0, [-1]),
    "label_seed": (0, [-1]),
    "validation_every": (0, [-1]),
    "reward_ce": (0.0, [-0.1, float("nan"), float("inf")]),
    "teacher_cost": (0.0, [-0.1, float("nan"), float("inf")]),
    "exploration_bonus": (0.0, [-0.1, float("nan"), float("inf")]),
    "kd_weight": (0.0, [-0.1, 1.1, float("nan"), float("inf")]),
    "reward_mix": (1.0, [-0.1, 1.1, float("nan")]),
    "temperature": (1e-3, [0.0, -1.0, float("nan"), float("inf")]),
}


@pytest.mark.parametrize("name", RANGES)
def test_ranges(task, name):
    edge, outside = RANGES[name]
    assert getattr(settings(task, **{name: edge}), name) == edge
    for value in outside:
        with pytest.raises(InputError, match=f"^{name}=.*must be"):
            settings(task, **{name: value})


def test_every_number_has_a_range():
    hints = typing.get_type_hints(Settings)
    assert set(RANGES) == {name for name in NAMES if hints[name] in (int, float)}


@pytest.mark.parametrize("credit", ["head", "first_order", "counterfactual"])
@pytest.mark.parametrize("reward", ["student_loss", "student_and_distillation_loss", "mixed"])
def test_credit_divides_dev_improvement_alone(task, credit, reward):
    with pytest.raises(InputError, match=r"credit=.*dev_improvement"):
        settings(task, credit=credit, reward=reward)
    assert settings(task, credit=credit, reward="dev_improvement").credit == credit


def test_a_phase_is_taught_by_one_decision(task):
    with pytest.raises(InputError, match=r"updates_per_phase=2: .*granularity=batch"):
        settings(task, updates_per_phase=2)
    assert settings(task, updates_per_phase=2, granularity="batch").updates_per_phase == 2


@pytest.mark.parametrize(
    ("text", "name", "options"),
    [
        ("mlp", "mlp", {}),
        ("  mlp ", "mlp", {}),
        ("mlp()", "mlp", {}),
        ("mlp(width=24)", "mlp", {"width": 24}),
        ("mlp( width = 24 , depth=2, )", "mlp", {"width": 24, "depth": 2}),
        ("adam(lr=1e-3,decay=linear)", "adam", {"lr": 1e-3, "decay": "linear"}),
        ("p(on=True,off=false,none=None)", "p", {"on": True, "off": False, "none": None}),
        ("a/b-c:D(x=-1)", "a/b-c:D", {"x": -1}),
        ("agent(start=router(steps=3,lr=0.1),rate=2)", "agent", {"start": "router(steps=3,lr=0.1)", "rate": 2}),
        ("net(sizes=[1,2,3],shape=(4,5),table={'a':1})", "net", {"sizes": [1, 2, 3], "shape": (4, 5), "table": {"a": 1}}),
        ("a(b=c(d=e(f=1)))", "a", {"b": "c(d=e(f=1))"}),
        ("a(text='x',b=y z)", "a", {"text": "x", "b": "y z"}),
    ],
)
def test_specs_are_split_into_name_and_options(text, name, options):
    made = spec.parse(text)
    assert made == Spec(name, options)
    assert {key: type(value) for key, value in made.options.items()} == {key: type(value) for key, value in options.items()}


def test_a_nested_spec_is_a_spec():
    outer = spec.parse("agent(start=router(steps=3),rate=2)")
    assert spec.parse(outer.options["start"]) == Spec("router", {"steps": 3})


@pytest.mark.parametrize(
    "text", ["mlp(", "mlp(width=24", "mlp(width=24)x", "(width=24)", "mlp(width)", "mlp(=3)", "mlp(2x=3)", "mlp(a b=1)"]
)
def test_malformed_specs_are_refused_with_their_text(text):
    with pytest.raises(InputError, match="expected"):
        spec.parse(text)


@pytest.mark.parametrize("text", ["net(a=1,a=2)", "net(a=1,b=2,a=1)"])
def test_an_option_given_twice_is_refused(text):
    with pytest.raises(InputError, match="a is given twice"):
        spec.parse(text)


def test_equal_specs_have_equal_text_which_parses_back():
    one, two = spec.parse("net(b=2,a=[1, 2],c=x(y=1))"), spec.parse("net(c=x(y=1), a=[1,2], b=2)")
    assert str(one) == str(two) == "net(a=[1, 2],b=2,c=x(y=1))"
    assert spec.parse(str(one)) == one
    assert str(spec.parse("net()")) == "net"


def test_call_names_wrong_options_and_passes_inner_errors():
    def make(given, width, depth=1):
        raise TypeError("inside")

    with pytest.raises(InputError, match=r"net\(size=3\).*size.*options: depth"):
        spec.call("net(size=3)", make, {"size": 3, "width": 1}, 0)
    with pytest.raises(InputError, match=r"net: .*width"):
        spec.call("net", make, {}, 0)
    with pytest.raises(TypeError, match="inside"):
        spec.call("net", make, {"width": 3}, 0)
    assert spec.call("net", lambda given, width: (given, width), {"width": 3}, 0) == (0, 3)


@pytest.mark.parametrize("value", [0, -1, 0.5, True, "1", None, float("nan"), float("inf"), 9])
def test_a_number_out_of_its_range_is_refused_with_what_was_expected(value):
    with pytest.raises(InputError) as caught:
        spec.numbers("policy", least=1, most=8, whole=True, size=value)
    assert str(caught.value) == f"policy(size={value!r}): expected a whole number of at least 1, at most 8"


@pytest.mark.parametrize(
    ("limits", "inside", "outside", "expected"),
    [
        ({"least": 0}, [0, 0.0, 1e9], [-1e-9], "a number of at least 0"),
        ({"above": 0}, [1e-9, 3], [0, 0.0], "a number above 0"),
        ({"least": 0, "below": 1}, [0, 0.99], [1, 1.0, -0.1], "a number of at least 0, below 1"),
        ({"above": 0, "most": 1}, [0.1, 1], [0, 1.1], "a number above 0, at most 1"),
        ({}, [-3, 0.5], [float("nan"), False, "0"], "a number"),
    ],
)
def test_ends_of_a_range(limits, inside, outside, expected):
    for value in inside:
        spec.numbers("it", **limits, x=value)
    for value in outside:
        with pytest.raises(InputError) as caught:
            spec.numbers("it", **limits, x=value)
        assert str(caught.value) == f"it(x={value!r}): expected {expected}"


def test_one_of_tells_true_from_1():
    spec.one_of("it", True, False, on=True)
    spec.one_of("it", "a", "b", kind="b")
    for value in (1, 0, "true", None):
        with pytest.raises(InputError, match=r"it\(on=.*\): expected true or false$"):
            spec.one_of("it", True, False, on=value)
    with pytest.raises(InputError, match=r"it\(kind='c'\): expected a or b$"):
        spec.one_of("it", "a", "b", kind="c")
