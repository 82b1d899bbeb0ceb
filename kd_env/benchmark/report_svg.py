"""Turn a figure into SVG that is part of a page. In: a matplotlib `Figure`. Out: an ``<svg>`` element whose colours follow the page.

Text stays text in the font of the page. Colours become the CSS variables of report.css: ``--c0`` and so on for policies, ``--faint`` and
``--rule`` for what is not data. Black becomes ``currentColor``. What belongs to a policy has the attribute ``data-policy``.
"""

from __future__ import annotations

import io
import re
from html import escape
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from kd_env.analysis.canvas import FAINT, PAGE, RULE
from kd_env.analysis.palette import COLOURS

VARIABLES = {colour: f"var(--c{index})" for index, colour in enumerate(COLOURS)} | {
    FAINT: "var(--faint)", RULE: "var(--rule)", PAGE: "var(--page)", "#000000": "currentColor",
}  # fmt: skip
COLOURED = re.compile(r'\b(?:style|fill|stroke)="[^"]*"')
"""Attributes with colours."""
PLACED = re.compile(r'\b(?:d|x|y|x1|x2|y1|y2|cx|cy|r|rx|ry|width|height|points|transform)="[^"]*"')
"""Attributes with coordinates, which are shortened. Text and names are not."""
SETTINGS: Any = {"svg.fonttype": "none", "svg.hashsalt": "kd-env", "path.simplify": False}


def page_svg(figure: Figure, name: str, label: str) -> str:
    """Return the figure as an ``<svg>`` element.

    Args:
        figure: the figure.
        name: prefix of the ids of this figure, unique on the page.
        label: what the figure shows, for readers who do not see it.
    """
    text = figure_svg(figure)
    width, height = (float(number) for number in re.findall(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', text)[0])
    text = text[text.index("<g id=") : text.rindex("</svg>")]
    text = re.sub(r"<!--.*?-->\s*", "", text, flags=re.DOTALL)
    text = re.sub(r'id="policy:([^"]*)"', r'data-policy="\1"', text)
    used = set(re.findall(r"(?:href=\"#|url\(#)([^\")]+)", text))
    text = re.sub(r' id="([^"]*)"', lambda match: f' id="{name}-{match[1]}"' if match[1] in used else "", text)
    text = re.sub(r'xlink:href="#', f'href="#{name}-', text).replace("url(#", f"url(#{name}-")
    text = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1", text)
    text = COLOURED.sub(lambda match: re.sub(r"#[0-9a-f]{6}\b", lambda colour: VARIABLES.get(colour[0], colour[0]), match[0]), text)
    text = PLACED.sub(lambda match: re.sub(r"(\d+\.\d\d)\d+", r"\1", match[0]), text)
    text = re.sub(r"\n\s*", "\n", text)
    size = f'viewBox="0 0 {width:g} {height:g}" style="width: {width / 12:.2f}rem"'
    return f'<svg class="plot" role="img" aria-label="{escape(label)}" {size}>\n{text}</svg>'


def figure_svg(figure: Figure) -> str:
    """Return the figure as an SVG document with a transparent background. The same figure gives the same text."""
    file = io.StringIO()
    with matplotlib.rc_context(SETTINGS):
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return file.getvalue()
