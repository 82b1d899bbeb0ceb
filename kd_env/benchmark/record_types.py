"""Check the types of a record's fields, which a file that was edited or is of another version may not have."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

MAX_NUMBER = 2**63
"""Numbers of this size and above do not fit into a table or a figure."""
SURROGATE = re.compile("[\ud800-\udfff]")
NUMBER = (int, float, type(None))
TYPES: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("trial", "task", "policy", "access", "student", "pool", "metric", "device"), (str,)),
    **dict.fromkeys(("suite", "bank"), (str, type(None))),
    **dict.fromkeys(("seed", "updates", "reward_labels"), (int,)),
    **dict.fromkeys(("test", "validation", "reward_split", "reward_sum", "weight_entropy", "selection_entropy"), NUMBER),
    **dict.fromkeys(("student_forward_examples", "reward_forward_examples", "teacher_forward_examples"), NUMBER),
    **dict.fromkeys(("wall_s", "peak_rss_mb"), (int, float)),
    **dict.fromkeys(("versions", "config"), (dict,)),
    **dict.fromkeys(("teachers", "curve"), (list,)),
    "selection_rate": (list, type(None)),
    "env": (dict, type(None)),
    "diverged": (bool,),
}
"""Types of the fields, in JSON: a number that is not finite is null."""


def other_type(record: Mapping[str, Any]) -> str:
    """Return which field has another type, in words; empty if none has."""
    for name, types in TYPES.items():
        value = record[name]
        if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
            return f"{name} is {_shown(value)}, expected {_words(types)}"
        if _is_large(value):
            return f"{name} is {_shown(value)}, expected a smaller number"
        if isinstance(value, str) and not value.isascii() and SURROGATE.search(value):
            return f"{name} is {_shown(value)}, half of a surrogate pair"
    for name, types in (("teachers", (str,)), ("selection_rate", NUMBER)):
        for item in record[name] or ():
            if not isinstance(item, types) or isinstance(item, bool):
                return f"{name} holds {_shown(item)}, expected {_words(types)}"
            if _is_large(item):
                return f"{name} holds {_shown(item)}, expected a smaller number"
    population = record["config"].get("population", 1)
    if type(population) is not int or population < 1:
        return f"config: population is {_shown(population)}, expected a whole number of at least 1"
    if "tuned" in record["config"] and not _is_configuration(record["config"]["tuned"]):
        return f"config: tuned is {_shown(record['config']['tuned'])}, expected an object with options, settings and trials"
    for point in record["curve"]:
        if not isinstance(point, dict) or not isinstance(point.get("update"), int) or not isinstance(point.get("validation"), NUMBER):
            return f"curve holds {_shown(point)}, expected objects with update and validation"
        if any(_is_large(value) for value in point.values()):
            return f"curve holds {_shown(point)}, expected smaller numbers"
    return ""


def _is_large(value: object) -> bool:
    return isinstance(value, int | float) and abs(value) >= MAX_NUMBER


def _is_configuration(tuned: Any) -> bool:
    types = {"options": dict, "settings": dict, "trials": int}
    return isinstance(tuned, dict) and tuned.keys() == types.keys() and all(isinstance(tuned[name], types[name]) for name in types)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _words(types: tuple[type, ...]) -> str:
    return " or ".join("null" if kind is type(None) else kind.__name__ for kind in types)
