"""Text of data and names of users, shown without characters that act."""

import pytest

from kd_env.printable import markdown_text, one_line, printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, naïve 日本 $x^$", "plain, naïve 日本 $x^$"),
        ("red \x1b[31m\x07", "red \\x1b[31m\\x07"),
        ("\x9b31m\r\x00", "\\x9b31m\\r\\x00"),
        ("abc\u202egpj.exe\u2066", "abc\\u202egpj.exe\\u2066"),
        ("half \ud800", "half \\ud800"),
        ("two\nlines", "two\nlines"),
    ],
)
def test_characters_that_act_are_escaped(text, shown):
    assert printable(text) == shown


def test_one_line():
    assert one_line(" a\n\tb\x1b ") == "a b\\x1b"


def test_markdown_holds_no_html_no_link_and_no_border():
    assert markdown_text("a|b <img src=x>\n</td> p < 0.05 [x](y)") == "a\\|b &lt;img src=x> &lt;/td> p < 0.05 [x]\\(y)"
