"""Give each policy one colour, dash pattern and marker, which it keeps on all figures. In: names of policies. Out: a `Style` for each.

The colours follow the hues of Okabe and Ito, which colour-blind readers can distinguish. Each has a contrast of at least 4.5 to white, and
its counterpart in `DARK` to a dark page. After eight policies the dash pattern and the marker change.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple

COLOURS = ("#0072b2", "#d04a00", "#008563", "#b34a8b", "#9a6b00", "#6a51c2", "#4d7c0f", "#64707d")
"""Colours on a white page."""
DARK = ("#56b4e9", "#ff8a4c", "#2dc79a", "#e58fc3", "#e6b13c", "#a99bf2", "#a3cf52", "#a3adb8")
"""The same colours on a dark page."""
Dashes = Literal["-", "--", ":", "-."]
DASHES: tuple[Dashes, ...] = ("-", "--", ":", "-.")
MARKERS = ("o", "s", "^", "D")


class Style(NamedTuple):
    """How all figures draw a policy.

    Attributes:
        hue: position of the colour in `COLOURS` and `DARK`.
        dashes: line style of matplotlib.
        marker: marker of matplotlib.
    """

    hue: int
    dashes: Dashes
    marker: str

    @property
    def colour(self) -> str:
        """The colour on a white page."""
        return COLOURS[self.hue]


def policy_styles(policies: Iterable[str]) -> dict[str, Style]:
    """Return the style of each policy. It depends on the names alone, not on their order."""
    styles = {}
    for number, policy in enumerate(sorted(set(policies))):
        hue, turn = number % len(COLOURS), number // len(COLOURS)
        styles[policy] = Style(hue, DASHES[turn % len(DASHES)], MARKERS[turn % len(MARKERS)])
    return styles
