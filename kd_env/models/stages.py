"""Name the feature maps of the stages of a network. In: names of requested outputs. Out: the maps that they ask for.

``maps`` asks for the last map, ``maps.stage2`` for the one that a network calls ``stage2``, and ``maps.all`` for those of all numbered
stages, ``stage1``, ``stage2`` and so on. A map before the first stage (``stem``) or after the last one has a name without a number.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TypeVar

LAST = "last"
"""Stage whose mean over positions is classified."""
ALL = "all"
"""All numbered stages."""
STEM = "stem"
"""Stage before the first numbered one, in networks that have it."""
Value = TypeVar("Value")


def request(stage: str) -> str:
    """Return the name of the output that asks for the map of a stage: ``maps`` for the last one, else ``maps.STAGE``."""
    return "maps" if stage == LAST else f"maps.{stage}"


def output_of(name: str) -> str:
    """Return the output that a requested name is part of: ``maps`` for ``maps.stage2``, and the name itself for others."""
    return name.partition(".")[0]


def numbered(stages: Iterable[str]) -> list[str]:
    """Return the names of the numbered stages among ``stages``, in order."""
    return [stage for stage in stages if re.fullmatch(r"stage\d+", stage)]


def requested(stages: Mapping[str, Value], names: frozenset[str]) -> dict[str, Value]:
    """Return the entries of ``stages`` that the requested ``names`` ask for by the stage's name or by ``maps.all``."""
    of_all = numbered(stages) if request(ALL) in names else ()
    return {stage: value for stage, value in stages.items() if f"maps.{stage}" in names or stage in of_all}
