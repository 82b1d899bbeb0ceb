"""Docstrings of environments are Markdown, as Gymnasium's are: they are pages of their own, and the API names these pages.

``<!-- docstring of module:Class -->`` in a page becomes that docstring.
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


def shorten(app: Any, what: str, name: str, obj: object, options: Any, lines: list[str]) -> None:
    """Keep only the first part of a Markdown docstring in the API."""
    heading = next((number for number, line in enumerate(lines) if line.startswith("## ")), None)
    if heading is not None:
        lines[heading:] = ["Its page among the environments describes spaces, rewards and ``info``.", ""]


def setup(app: Any) -> dict[str, bool]:
    """Register with Sphinx."""
    app.connect("source-read", insert)
    app.connect("autodoc-process-docstring", shorten, priority=400)  # before napoleon, which rewrites sections
    return {"parallel_read_safe": True}
