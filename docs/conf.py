"""How Sphinx builds the site: ``make docs`` writes it to ``docs/_build/html``. Nothing is downloaded, and warnings are errors."""

import sys
from pathlib import Path

DOCS = Path(__file__).parent
sys.path[:0] = [str(DOCS.parent), str(DOCS / "_ext")]  # the tree beside this file, whatever is installed

from kd_env import __version__  # noqa: E402  (found through the path above)

project = "kd-env"
author = "The kd-env authors"
release = version = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "api_pages",
    "docstrings",
]
exclude_patterns = ["_build", "records", "pools"]
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
highlight_language = "none"  # formulas and listings without a language are plain text
suppress_warnings = ["ref.python"]  # two classes of one name: a link then goes to the one in the same package

myst_heading_anchors = 3

autodoc_default_options = {"members": True}
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
napoleon_use_ivar = True
python_use_unqualified_type_names = True
toc_object_entries = False  # modules alone: with their members the navigation of every page takes four times as long to build

html_theme = "furo"
html_title = f"kd-env {version}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_show_copyright = False
