"""Show text of data files and names of users. In: any text. Out: the same without characters that act instead of being seen."""

from __future__ import annotations

import re

from kd_env.errors import InputError

_ACTING = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff\ufffe\uffff]")
"""Control characters except the line feed, marks that turn the direction of text, other line separators, and halves of surrogate pairs."""


def printable(text: str) -> str:
    r"""Replace control characters, as of terminal colours, and direction marks by their escapes, as ``\x1b``. Line feeds stay."""
    return _ACTING.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def require_text(text: str) -> None:
    """Check that a text can be written, as an argument of a command line that is not UTF-8 cannot.

    Raises:
        InputError: it cannot.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InputError(f"{text!r} is not UTF-8; use another name") from None


def one_line(text: str) -> str:
    """Return the text in one line: white space becomes single spaces, the rest as :func:`printable`."""
    return printable(" ".join(text.split()))


def markdown_text(value: object) -> str:
    """Return a value's text as one line of Markdown that holds no HTML, no link and no cell border."""
    text = re.sub(r"<(?=[A-Za-z/!?])", "&lt;", one_line(str(value)))
    return text.replace("](", "]\\(").replace("|", "\\|")
