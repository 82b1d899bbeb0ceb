"""Write the differences to ``uniform`` on the pages of the systems, from the committed records: ``python docs/ours.py``.

A page has a marker, ``<!-- docs/ours.py FOLDER POLICY ... -->``, and below it the table of these policies.
"""

from __future__ import annotations

import functools
import re
from collections import defaultdict
from pathlib import Path

from kd_env.analysis.seeds import require_one_setting
from kd_env.benchmark.records import Record, read
from kd_env.benchmark.statistics import paired_difference

ROOT = Path(__file__).parent.parent
PAGES = ROOT / "docs" / "systems"
MARKED = re.compile(r"(<!-- docs/ours\.py (\S+) (\S+(?: \S+)*?) -->\n)((?:\|.*\n)*)")


def points(value: float) -> str:
    """Return a difference in points with its sign."""
    return f"{100 * value:+.1f}".replace("-", "−")


@functools.cache
def scores_in(folder: str) -> dict[tuple[str, str], dict[int, float]]:
    """Return the test scores of the records in ``folder`` by pool and policy, and then by seed.

    Raises:
        InputError: the records of a pool are of two settings.
    """
    by_pool: dict[str, list[Record]] = defaultdict(list)
    for record in read(ROOT / folder):
        by_pool[record["pool"]].append(record)
    scores: dict[tuple[str, str], dict[int, float]] = defaultdict(dict)
    for pool, records in by_pool.items():
        require_one_setting(records, f"{folder}, pool {pool}: ")
        for record in records:
            scores[pool, record["policy"]][record["seed"]] = record["test"]
    return scores


def table(folder: str, policies: list[str]) -> str:
    """Return the table: a row for each policy, and a column for each pool of the records in ``folder``."""
    scores = scores_in(folder)
    pools = list(dict.fromkeys(pool for pool, _ in scores))
    lines = [f"| test accuracy − that of `uniform`, in points | {' | '.join(pools)} |", "|---" * (1 + len(pools)) + "|"]
    for policy in policies:
        cells = []
        for pool in pools:
            ours, uniform = scores[pool, policy], scores[pool, "uniform"]
            difference = paired_difference(*zip(*((ours[seed], uniform[seed]) for seed in sorted(ours)), strict=True))
            mark = " ▲" if difference.low > 0 else " ▼" if difference.high < 0 else ""
            cells.append(f"{points(difference.mean)} [{points(difference.low)}, {points(difference.high)}]{mark}")
        lines.append(f"| `{policy}` | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def updated(page: str) -> str:
    """Return the text of a page with the table of each marker."""
    return MARKED.sub(lambda match: match[1] + table(match[2], match[3].split()), page)


if __name__ == "__main__":
    for path in sorted(PAGES.glob("*.md")):
        path.write_text(updated(path.read_text()))
