"""How Sphinx builds the site: ``make docs`` writes it to ``docs/_build/html``. Nothing is fetched, and warnings are errors."""

import re
import sys
from importlib import import_module
from pathlib import Path

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS.parent))  # the tree beside this file, whatever is installed

from kd_env import __version__  # noqa: E402  (found through the path above)

project = "kd-env"
author = "The kd-env authors"
copyright = "The kd-env authors"
release = version = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
exclude_patterns = ["_build", "records", "pools"]
templates_path = ["_templates"]
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
default_role = "code"
highlight_language = "none"  # formulas and listings without a language are plain text

myst_heading_anchors = 3
suppress_warnings = ["myst.strikethrough"]

autosummary_generate = True
autosummary_ignore_module_all = False
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_typehints_format = "short"
napoleon_use_ivar = True
python_use_unqualified_type_names = True

html_theme = "furo"
html_title = "kd-env"
html_copy_source = False
html_show_sourcelink = False

DOCSTRING = re.compile(r"<!-- docstring of ([\w.]+):(\w+) -->")
ROLE = re.compile(r":(class|func|meth|data|mod|attr):`[~]?([^`]+)`")


def insert_docstrings(app, docname, source):
    """Replace ``<!-- docstring of module:Class -->`` by that docstring, which is Markdown: an environment's page is its docstring."""

    def docstring(match):
        text = getattr(import_module(match[1]), match[2]).__doc__
        lines = text.splitlines()
        body = "\n".join(line.removeprefix("    ") for line in lines)
        return ROLE.sub(r"`\2`", body)

    source[0] = DOCSTRING.sub(docstring, source[0])


def setup(app):
    """Connect the one hook."""
    app.connect("source-read", insert_docstrings)
