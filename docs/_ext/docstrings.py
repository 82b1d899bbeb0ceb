"""How docstrings become pages.

Docstrings of environments are Markdown, as Gymnasium's are. ``<!-- docstring of module:Class -->`` in a page becomes that docstring, and
the API names that page instead of repeating it.
"""

from __future__ import annotations

import inspect
import re
from importlib import import_module
from typing import Any

MARKER = re.compile(r"<!-- docstring of ([\w.]+):(\w+) -->")
ROLE = re.compile(r":\w+:`[~]?([^`]+)`")


def insert(app: Any, name: str, source: list[str]) -> None:
    """Replace the markers of a page."""

    def docstring(match: re.Match[str]) -> str:
        text = inspect.getdoc(getattr(import_module(match[1]), match[2])) or ""
        return ROLE.sub(r"`\1`", text)

    source[0] = MARKER.sub(docstring, source[0])


def prepare(app: Any, what: str, name: str, obj: object, options: Any, lines: list[str]) -> None:
    """Cut a Markdown docstring at its first heading, and keep napoleon from reading the first words of a value's docstring as its type."""
    heading = next((number for number, line in enumerate(lines) if line.startswith("## ")), None)
    if heading is not None:
        lines[heading:] = ["Its page among the environments describes spaces, rewards and ``info``.", ""]
    if what in ("data", "attribute", "property") and lines:
        lines[:0] = ["..", ""]  # an empty comment: napoleon takes what stands before a colon in the first line for a type


def skip(app: Any, what: str, name: str, obj: object, skipped: bool, options: Any) -> bool | None:
    """Leave out the fields of named tuples, whose docstrings are "Alias for field number 0"; the signature has them."""
    return True if type(obj).__name__ == "_tuplegetter" else None


def setup(app: Any) -> dict[str, bool]:
    """Register with Sphinx."""
    app.connect("source-read", insert)
    app.connect("autodoc-process-docstring", prepare, priority=400)  # before napoleon
    app.connect("autodoc-skip-member", skip)
    return {"parallel_read_safe": True}
