"""The API pages: one page per package, one section per module, all from docstrings; ``<!-- packages -->`` becomes a table of them.

In: the source tree. Out: ``docs/api/generated/PACKAGE.rst``, rewritten only where it has changed.
"""

from __future__ import annotations

import pkgutil
import re
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

ROOTS = ("kd_env", "agents", "baselines")
FOLDER = Path(__file__).parent.parent / "api" / "generated"


def packages() -> list[ModuleType]:
    """Return every package, each before the packages in it."""
    modules = []
    for root in ROOTS:
        modules.append(import_module(root))
        names = [info.name for info in pkgutil.walk_packages(modules[-1].__path__, f"{root}.") if info.ispkg]
        modules += [import_module(name) for name in names]
    return modules


def page(package: ModuleType) -> str:
    """Return the page of one package as reStructuredText."""
    sections = [section(package.__name__, "=")]
    for info in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        if not info.ispkg and not info.name.rpartition(".")[2].startswith("_"):
            sections.append(section(info.name, "-"))
    return "\n".join(sections)


def section(module: str, rule: str) -> str:
    """Return the section of one module: what it defines, not what it imports for others."""
    return f"{module}\n{rule * len(module)}\n\n.. automodule:: {module}\n   :ignore-module-all:\n"


def table() -> str:
    """Return a Markdown table of all packages."""
    rows = [f"| [`{package.__name__}`](generated/{package.__name__}.rst) | {first_line(package)} |" for package in packages()]
    return "\n".join(["| package | content |", "|---|---|", *rows])


def first_line(package: ModuleType) -> str:
    """Return the first sentence of a package's docstring, as Markdown."""
    paragraph = (package.__doc__ or "").strip().partition("\n\n")[0].replace("\n", " ").removesuffix("::")
    return re.sub(r":\w+:`[~]?([^`]+)`", r"`\1`", paragraph).replace("``", "`").replace("|", r"\|")


def write_pages(app: Any) -> None:
    """Write the pages that have changed, and remove those whose package is gone."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    pages = {FOLDER / f"{package.__name__}.rst": page(package) for package in packages()}
    for path in set(FOLDER.glob("*.rst")) - pages.keys():
        path.unlink()
    for path, text in pages.items():
        if not path.exists() or path.read_text() != text:
            path.write_text(text)


def insert_table(app: Any, name: str, source: list[str]) -> None:
    """Put the table where a page asks for it."""
    source[0] = source[0].replace("<!-- packages -->", table()) if "<!-- packages -->" in source[0] else source[0]


def setup(app: Any) -> dict[str, bool]:
    """Register with Sphinx."""
    app.connect("builder-inited", write_pages)
    app.connect("source-read", insert_table)
    return {"parallel_read_safe": True}
