"""Split texts that list names, where a name may hold commas: ``Toys,Arts, Crafts & Sewing`` is two names if these two are known."""

from __future__ import annotations

from collections.abc import Collection

from kd_env import spec


def split_names(text: str, known: Collection[str]) -> list[str]:
    """Return the names in ``text``. From the left, the longest part that is a known name is taken; else the part up to the next comma.

    Commas in brackets separate nothing.
    """
    parts, names, start = spec.split(text), [], 0
    stripped = {name.strip() for name in known}
    longest = max((name.count(",") + 1 for name in stripped), default=1)
    while start < len(parts):
        for end in range(min(start + longest, len(parts)), start, -1):
            name = ",".join(parts[start:end]).strip()
            if name in stripped or end == start + 1:
                names.append(name)
                start = end
                break
    return names
