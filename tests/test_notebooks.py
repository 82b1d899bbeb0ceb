"""The notebooks are clean: no outputs, stable cell ids, and every name of this project that they import exists.

`make notebooks` executes them.
"""

import ast
import json
import pkgutil
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
OURS = ("kd_env", "agents", "baselines")
MAX_CHARACTERS = 160


def cells(path, kind):
    return [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == kind]


def code(path):
    """The Python of a notebook, without magic commands and without the files that it writes."""
    sources = ["".join(cell["source"]) for cell in cells(path, "code")]
    lines = "\n".join(source for source in sources if not source.startswith("%%")).splitlines()
    return ast.parse("\n".join(line for line in lines if not line.startswith("%")))


def imported(tree):
    """The names that a notebook imports from this project, as ``module:name`` or ``module``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] in OURS:
            yield from (f"{node.module}:{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] in OURS)


def test_there_are_five_notebooks_and_the_docs_list_them():
    assert [path.stem[:2] for path in NOTEBOOKS] == ["01", "02", "03", "04", "05"]
    page = (ROOT / "docs" / "how-to" / "notebooks.md").read_text()
    assert set(re.findall(r"`notebooks/(\w+\.ipynb)`", page)) == {path.name for path in NOTEBOOKS}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_has_no_outputs_and_valid_ids(path):
    notebook = json.loads(path.read_text())
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    assert not [cell["id"] for cell in cells(path, "code") if cell["outputs"] or cell["execution_count"] is not None]
    ids = [cell["id"] for cell in notebook["cells"]]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(r"[a-z0-9-]{1,64}", name) for name in ids)
    assert not [cell["id"] for cell in notebook["cells"] if cell["metadata"]], "metadata of cells differ from editor to editor"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_imported_name_exists(path):
    names = set(imported(code(path)))
    assert len(names) > 5
    for name in names:
        pkgutil.resolve_name(name)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_text_names_notebooks_that_exist_and_has_short_lines(path):
    text = "\n".join("".join(cell["source"]) for cell in cells(path, "markdown"))
    assert text.startswith("# ")
    assert not set(re.findall(r"`(\w+\.ipynb)`", text)) - {other.name for other in NOTEBOOKS}
    assert not [line for line in text.splitlines() if len(line) > MAX_CHARACTERS]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_cells_can_be_run_again_and_with_other_data(path):
    calls = [node for node in ast.walk(code(path)) if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)]
    assert all("exist_ok" in {keyword.arg for keyword in call.keywords} for call in calls if call.func.attr == "mkdir")
    texts = [node.value for node in ast.walk(code(path)) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    assert not [text for text in texts if text.startswith("single:") and text != "single:"], "a teacher that other data do not have"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_that_writes_a_module_says_when_to_restart(path):
    text = " ".join("".join(cell["source"]).replace("\n", " ") for cell in cells(path, "markdown"))
    writes_module = any("".join(cell["source"]).startswith("%%writefile") for cell in cells(path, "code"))
    assert ("Restart the kernel after you change the file" in text) == writes_module
    assert "upper bound" not in text, "other policies can exceed oracle"
