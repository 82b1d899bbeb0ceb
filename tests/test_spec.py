"""Specs, ``name(key=value,...)``: split, written back, and refused where they are wrong."""

import pytest

from kd_env import spec
from kd_env.errors import InputError
from kd_env.spec import Spec


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
    parsed = spec.parse(text)
    assert parsed == Spec(name, options)
    assert {key: type(value) for key, value in parsed.options.items()} == {key: type(value) for key, value in options.items()}


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
    first, second = spec.parse("net(b=2,a=[1, 2],c=x(y=1))"), spec.parse("net(c=x(y=1), a=[1,2], b=2)")
    assert str(first) == str(second) == "net(a=[1, 2],b=2,c=x(y=1))"
    assert spec.parse(str(first)) == first
    assert str(spec.parse("net()")) == "net"


def test_call_names_wrong_options_and_passes_inner_errors():
    def make(argument, width, depth=1):
        raise TypeError("inside")

    with pytest.raises(InputError, match=r"net\(size=3\).*size.*options: depth"):
        spec.call("net(size=3)", make, {"size": 3, "width": 1}, 0)
    with pytest.raises(InputError, match=r"net: .*width"):
        spec.call("net", make, {}, 0)
    with pytest.raises(TypeError, match="inside"):
        spec.call("net", make, {"width": 3}, 0)
    assert spec.call("net", lambda argument, width: (argument, width), {"width": 3}, 0) == (0, 3)


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
