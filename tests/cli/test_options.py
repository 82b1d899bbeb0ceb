"""Options that several commands have: seeds, settings, examples."""

import re

import pytest

from kd_env.cli.options import examples, read_seeds, read_settings
from kd_env.errors import InputError


@pytest.mark.parametrize(("text", "seeds"), [("0-2", [0, 1, 2]), ("7", [7]), ("0,3,7", [0, 3, 7]), ("1-2, 2-3", [1, 2, 3])])
def test_seeds(text, seeds):
    assert read_seeds(text) == seeds


@pytest.mark.parametrize("text", ["zero", "-1", "4-0", "", "1,,2", "99999999999999999999", "0-999999999"])
def test_seeds_that_cannot_be_read_are_refused(text):
    with pytest.raises(
        InputError, match=rf"--seeds {re.escape(repr(text))}: .* names no seeds; expected numbers as 0-4 or 0,3,7, up to 10000"
    ):
        read_seeds(text)


def test_settings_come_from_set_and_from_their_own_options():
    assert read_settings(["kd_weight=0.5", "action=one"], updates=7, student=None) == {"kd_weight": 0.5, "action": "one", "updates": 7}
    assert read_settings(None, updates=None) == {}


def test_a_setting_is_given_once():
    with pytest.raises(InputError, match="--updates 5 and --set updates=7: give one of them"):
        read_settings(["updates=7"], updates=5)
    with pytest.raises(InputError, match=r"kd_weight is given twice, as 1 and 0\.5; give it once"):
        read_settings(["kd_weight=1", "kd_weight=0.5"])


def test_a_long_example_is_continued_before_an_option():
    command = "kd-env run --task digits --policy uniform --policy router --seeds 0-2 --out results/first"
    text = examples("kd-env demo", command)
    assert text.splitlines()[:3] == ["\b", "Examples:", "  kd-env demo"]
    lines = text.splitlines()[3:]
    assert len(lines) == 2
    assert max(map(len, lines)) < 78
    assert lines[0].endswith(" \\")
    assert " ".join(" ".join(lines).replace("\\", "").split()) == command
