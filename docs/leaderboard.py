"""Write docs/leaderboard.md from the committed records: ``python docs/leaderboard.py``."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

from kd_env.benchmark.records import Record, read
from kd_env.benchmark.report_claims import all_pairs, claim
from kd_env.benchmark.report_text import interval, number
from kd_env.benchmark.summary import SEEDS_FOR_A_CLAIM, by_score, summarise
from kd_env.policies import registry as policies

ROOT = Path(__file__).parent.parent
FOLDERS = (
    *("piloted", "few-labels", "256-labels", "all-labels", "taught-64", "taught-labels", "domains"),
    *("crossfit", "actor", "systems", "stacking", "known"),
)
"""Folders of docs/records/ whose trials are at the defaults of their policies. Of a trial that is in several, the first counts."""
PLAIN = frozenset({"reward_ce", "reward_labels", "updates", "population", "command", "teachers", "student"})
"""Entries of a configuration that do not change a policy or the setting, or that the heading of a table names."""
MAX_ROWS = 12

INTRODUCTION = """# Leaderboard

Test scores of all policies in the committed records, made by `python docs/leaderboard.py`. A table is one setting: task, pool, number
of reward labels, and whether the labels also teach (`reward_ce`). It has the {most} highest means of policies with at least {seeds}
seeds. ★ is the highest mean without the privileged `oracle`; ≈ cannot be told apart from it (paired t tests, Holm-adjusted over all
pairs of the setting). Labels are equal within a table, but not every policy uses them: see its [access](concepts.md#access-classes).

Each row can be checked with one command. It runs the trial of the row's first seed again and compares all its numbers:

```sh
kd-env replay docs/records/FOLDER TRIAL
```

Records of one table can be of several versions of kd-env and of two kinds of processor, so rows differ by that too. `piloted` decides
by itself whether labels teach; its rows are in the tables where they may. [Results on real text](real.md) are on a page of their own.

## Add a policy

1. Run it in a setting, five seeds or more: `kd-env run --task digits --teachers digits/systematic --policy my_module:MyPolicy --seeds
   0-9 --out results/mine`.
2. Check it: `kd-env replay results/mine` teaches each student again with the decisions in `results/mine/traces` and compares the
   record; the policy does not run, except where its decisions carry a gradient (`amtml`, `camkd`, ...). In a copy of the folder
   without `traces`, it runs every trial again. `kd_env.testing.check_policy` checks the class.
3. Submit `results/mine/results.jsonl` and the file of the policy. Settings are tuned on validation, with seeds from 100 on, and the
   test split is read once.

"""


def settings() -> dict[tuple[Any, ...], list[Record]]:
    """Return the records of each setting, each with the ``folder`` that it is from."""
    groups: dict[tuple[Any, ...], dict[tuple[str, int], Record]] = defaultdict(dict)
    for folder in FOLDERS:
        for record in read(ROOT / "docs" / "records" / folder):
            if PLAIN.issuperset(record["config"]):
                names = ("task", "pool", "student", "updates", "reward_labels")
                default = policies.find(record["policy"]).env_options.get("reward_ce", 0)
                setting = (*(record[name] for name in names), float(record["config"].get("reward_ce", default)))
                groups[setting].setdefault((record["policy"], record["seed"]), {**record, "folder": folder})
    return {setting: list(group.values()) for setting, group in groups.items()}


def table(records: list[Record]) -> list[str]:
    """Return the lines of the table of a setting."""
    summary = by_score(summarise(records))
    summary = summary[summary["n"] >= SEEDS_FOR_A_CLAIM]
    kept = [record for record in records if record["policy"] in set(summary["policy"])]
    winner = claim(all_pairs(summary, kept))
    lines = ["| | policy | access | n | test [95 %] | validation | folder | trial |", "|---|---|---|---|---|---|---|---|"]
    for row in summary.head(MAX_ROWS).itertuples():
        mark = "" if winner is None else "★" if row.policy == winner.winner else "≈" if row.policy in winner.equal else ""
        first = min((record for record in kept if record["policy"] == row.policy), key=lambda record: int(record["seed"]))
        test = interval(row.test, row.test_low, row.test_high)
        cells = (mark, f"`{row.policy}`", row.access, row.n, test, number(row.validation), first["folder"], f"`{first['trial']}`")
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return lines


def page() -> str:
    """Return the text of the page."""
    parts = [INTRODUCTION.format(most=MAX_ROWS, seeds=SEEDS_FOR_A_CLAIM)]
    for (task, pool, student, updates, labels, reward_ce), records in sorted(settings().items()):
        if len({record["policy"] for record in records}) < 3:
            continue
        lines = table(records)
        if len(lines) > 4:
            also = f", which also teach (`reward_ce={reward_ce:g}`)" if reward_ce else ""
            name = pool if pool.startswith(f"{task}/") else f"{task}, {pool}"
            parts.append(f"## {name}, {labels:,} labels{', also teaching' if reward_ce else ''}\n")
            parts.append(f"Student `{student}`, {updates:,} updates, {labels:,} reward labels{also}.\n")
            parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


if __name__ == "__main__":
    (ROOT / "docs" / "leaderboard.md").write_text(page())
