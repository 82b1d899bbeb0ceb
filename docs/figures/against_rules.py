"""Make the table and the figure of docs/how-to/choose.md from the committed records: ``python docs/figures/against_rules.py``.

On each pool, a learned policy is compared with the best rule that has the same labels. The best rule is the one with the highest mean on
validation. Differences are of test accuracy, paired by seed.
"""

import functools
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from kd_env.analysis.canvas import FAINT, FONT, REFERENCE, canvas
from kd_env.analysis.palette import COLOURS
from kd_env.benchmark import records
from kd_env.benchmark.statistics import paired_difference
from kd_env.benchmark.summary import RIVALS

DOCS = Path(__file__).parent.parent
FILE = Path(__file__).with_suffix(".csv")
Scores = dict[str, dict[int, tuple[float, float]]]
"""Accuracy on validation and on test, by policy and seed."""
POOLS = ("systematic", "drift", "complementary", "overconfident", "experts", "mixed", "capacity", "duplicated")
TAUGHT = " with labels"
"""Mark of a policy in a run with ``reward_ce=1``, where the reward labels also teach."""


class Setting(NamedTuple):
    """What is compared: the policy, the number of labels, the folder of its records, and those of the rules."""

    title: str
    policy: str
    labels: int
    folder: str
    rules: tuple[str, ...]


SETTINGS = (
    Setting("`crossfit_credit`, 64 labels", "crossfit_credit", 64, "few-labels", ("few-labels",)),
    Setting(
        "`crossfit_credit`, 256 labels that also teach",
        "crossfit_credit" + TAUGHT,
        256,
        "taught-labels",
        ("256-labels", "taught-labels"),
    ),
    Setting("`piloted`, 64 labels", "piloted", 64, "piloted", ("few-labels", "taught-64")),
    Setting("`piloted`, 256 labels", "piloted", 256, "piloted", ("256-labels", "taught-labels")),
    Setting("`piloted`, 1,200 labels", "piloted", 1200, "piloted", ("all-labels",)),
)


def compare() -> pd.DataFrame:
    """Return a row for each setting and pool: the best rule, and the difference to it in points, with its 95 % interval."""
    rows = []
    for setting in SETTINGS:
        parts = [by_pool(folder, setting.labels) for folder in setting.rules]
        for pool, policies in by_pool(setting.folder, setting.labels).items():
            learned = policies[setting.policy]
            seeds = sorted(learned)
            rules = {name: scores for part in parts for name, scores in part[pool].items() if is_rule(name)}
            best = max(rules, key=lambda name: sum(rules[name][seed][0] for seed in seeds))
            difference = paired_difference([learned[seed][1] for seed in seeds], [rules[best][seed][1] for seed in seeds])
            points = {name: 100 * getattr(difference, name) for name in ("mean", "low", "high")}
            rows.append(
                {"setting": setting.title, "policy": setting.policy, "pool": pool, "best_rule": best, **points, "seeds": len(seeds)}
            )
    return pd.DataFrame(rows)


def is_rule(name: str) -> bool:
    """Return whether a policy is a rule that uses the labels."""
    policy = name.removesuffix(TAUGHT).split("(")[0]  # without options
    return policy in RIVALS or name == "uniform" + TAUGHT


@functools.cache
def by_pool(folder: str, labels: int) -> dict[str, Scores]:
    """Return the scores of a folder with a number of labels, by pool."""
    scores: dict[str, Scores] = {}
    for run in records.read(DOCS / "records" / folder):
        if run["reward_labels"] != labels:
            continue
        name = run["policy"] + (TAUGHT if run["config"].get("reward_ce") else "")
        if run["policy"] in ("reward_supervised", "uniform_reward_ce"):
            name = run["policy"]
        policies = scores.setdefault(run["pool"].removeprefix("digits/"), {})
        policies.setdefault(name, {})[run["seed"]] = (run["validation"], run["test"])
    return scores


def figure(table: pd.DataFrame) -> Any:
    """Draw the differences with their intervals: a line per pool, a colour per setting."""
    pools = list(POOLS)
    drawn, axes = canvas(left=1.15, width=4.6, right=0.2, top=0.7, height=0.55 * len(pools), bottom=0.5)
    for number, (title, rows) in enumerate(table.groupby("setting", sort=False)):
        height = [pools.index(pool) + 0.16 * (number - 2) for pool in rows["pool"]]
        errors = [rows["mean"] - rows["low"], rows["high"] - rows["mean"]]
        axes.errorbar(
            rows["mean"], height, xerr=errors, fmt="o", markersize=4, linewidth=1.2, color=COLOURS[number], label=title.replace("`", "")
        )
    axes.axvline(0.0, **REFERENCE)
    axes.set_yticks(range(len(pools)), pools)
    axes.invert_yaxis()
    axes.set_xlabel("points of test accuracy above the best rule with the same labels", color=FAINT)
    axes.legend(loc="lower center", bbox_to_anchor=(0.38, 1.0), ncols=2, frameon=False, fontsize=FONT, columnspacing=1.0, handletextpad=0.3)
    return drawn


def markdown(table: pd.DataFrame) -> str:
    """Return the table of the page: a row for each pool, a column for each setting."""
    by_setting = {title: rows.set_index("pool") for title, rows in table.groupby("setting", sort=False)}
    lines = [f"| pool | {' | '.join(by_setting)} |", "| --- |" + " --- |" * len(by_setting)]
    for pool in POOLS:
        lines.append(f"| {pool} | {' | '.join(_cell(rows.loc[pool]) for rows in by_setting.values())} |")
    return "\n".join(lines)


def _cell(row: pd.Series) -> str:
    mean, low, high = (f"{row[name]:.1f}".replace("-", "\N{MINUS SIGN}") for name in ("mean", "low", "high"))
    return f"{mean} [{low}, {high}], `{row['best_rule'].removesuffix(TAUGHT)}`" + (" *" if row["best_rule"].endswith(TAUGHT) else "")


def main() -> None:
    """Write against_rules.csv and against-rules.png, and print the table."""
    table = compare()
    table.round(2).to_csv(FILE, index=False)
    figure(table).savefig(FILE.with_name("against-rules.png"), dpi=150)
    print(markdown(table))


if __name__ == "__main__":
    main()
