"""Plug-ins by name: built-in or ``module:Class``, with options; every error says which plug-in, and where."""

import re
from abc import ABC, abstractmethod
from pathlib import Path

import pytest

from kd_env.errors import InputError
from kd_env.plugins import build, resolve


class Animal(ABC):
    @abstractmethod
    def speak(self):
        """Return what it says."""


class Cat(Animal):
    def __init__(self, home, lives=9):
        self.home, self.lives = home, lives

    def speak(self):
        return "meow"


class Unicorn(Cat):
    def __init__(self, home):
        raise ZeroDivisionError("there are none")


def not_a_class():
    pass


def built(text):
    return build(text, "pet", {"cat": Cat}, Animal, "house")


def test_a_built_in_and_a_class_of_one_s_own_take_arguments_and_options():
    for text, lives in (("cat", 9), ("cat(lives=3)", 3), (f"{__name__}:Cat", 9), (f"{__name__}:Cat(lives=2)", 2)):
        pet = built(text)
        assert (type(pet).__name__, pet.home, pet.lives) == ("Cat", "house", lives)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cta", "unknown pet 'cta'; did you mean 'cat'? (or name your own as module:Class)"),
        (f"{__name__}:Dog", f"pet '{__name__}:Dog' cannot be imported (AttributeError: .*); give module:name, importable from here"),
        ("no_such_module:Dog", "pet 'no_such_module:Dog' cannot be imported (ModuleNotFoundError: .*); give module:name"),
        ("builtins:dict", f"pet 'builtins:dict': builtins:dict is not a subclass of {__name__}.Animal; derive it from that"),
        (f"{__name__}:Animal", f"pet '{__name__}:Animal': {__name__}:Animal does not define speak; define it"),
        (f"{__name__}:not_a_class", "not_a_class is not a subclass of"),
        ("cat(colour=1)", "pet 'cat(colour=1)': got an unexpected keyword argument 'colour'; options: lives"),
        (f"{__name__}:Cat(colour=1)", f"pet '{__name__}:Cat(colour=1)': got an unexpected keyword argument 'colour'; options: lives"),
        ("cat(lives", "'cat(lives': expected name(key=value,...)"),
    ],
)
def test_what_is_wrong_is_named(text, message):
    pattern = ".*".join(re.escape(part) for part in message.split(".*"))
    with pytest.raises(InputError, match=pattern):
        built(text)


def test_an_error_raised_inside_names_file_and_line():
    line = next(number for number, text in enumerate(Path(__file__).read_text().splitlines(), 1) if "there are none" in text)
    with pytest.raises(InputError) as caught:
        built(f"{__name__}:Unicorn")
    assert f"pet '{__name__}:Unicorn': ZeroDivisionError: there are none ({__file__}, line {line})" in str(caught.value)


def test_any_object_can_be_resolved():
    assert resolve("math:pi", "number") == pytest.approx(3.14159, abs=1e-5)
