"""Tables to words. In: a setting's table and records. Out: one honest paragraph, and the numbers as the report prints them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from kd_env.benchmark.records import Record
from kd_env.benchmark.summary import RIVALS, SEEDS_FOR_A_CLAIM, USES_REWARD_LABELS, base_name

NOTHING = "–"


def reading(table: pd.DataFrame, records: Sequence[Record]) -> str:
    """One paragraph that claims no more than the table of a setting allows."""
    said = []
    attainable = table[(table["access"] != "privileged") & table["test"].notna()]
    if not all(record["config"].get("test", True) for record in records):
        said.append("Test was not opened (--no-test): this is for choosing settings, by validation, and no result to report.")
    elif len(attainable):
        best = attainable.loc[attainable["test"].idxmax()]
        said.append(
            f"Highest mean test {records[0]['metric']}, privileged policies aside: {best.policy} ({best.access}) with "
            f"{number(best.test)}, n = {best.n}; a highest mean alone does not make a policy better."
        )
    compared = table[table["pairs"] > 0]
    if table["rival"].any():
        said.append(f"The best rival with the same labels, chosen on validation, is {table.loc[table['rival'], 'policy'].iloc[0]}.")
        enough = compared[(compared["pairs"] >= SEEDS_FOR_A_CLAIM) & ~compared["policy"].map(base_name).isin(RIVALS)]
        for words, rows in (
            ("is above 0 for", enough[(enough["difference"] > 0) & (enough["p"] < 0.05)]),
            ("is below 0 for", enough[(enough["difference"] < 0) & (enough["p"] < 0.05)]),
            ("is undecided for", enough[~(enough["p"] < 0.05)]),
        ):
            if len(rows):
                names = "; ".join(f"{row.policy} ({difference(row)})" for row in rows.itertuples())
                said.append(f"The test difference to it (Holm-adjusted p below 0.05, else undecided) {words} {names}.")
    elif table["access"].isin(USES_REWARD_LABELS).any():
        said.append(f"No rival with the same labels was run ({', '.join(RIVALS)}), so no gain can be credited to learning to select.")
    few = table[(table["n"] < SEEDS_FOR_A_CLAIM) | ((table["pairs"] > 0) & (table["pairs"] < SEEDS_FOR_A_CLAIM))]
    if len(few) == len(table):
        said.append(f"With fewer than {SEEDS_FOR_A_CLAIM} seeds (n = {table['n'].max()}) no policy may be called better than another.")
    elif len(few):
        names = ", ".join(few["policy"])
        said.append(f"With fewer than {SEEDS_FOR_A_CLAIM} seeds, these may not be called better or worse than any other: {names}.")
    if diverged := [record["trial"] for record in records if record["diverged"]]:
        said.append(
            f"{len(diverged)} of {len(records)} trials diverged ({', '.join(diverged)}); one without a test score is not in the means, "
            "which flatters its policy."
        )
    return " ".join(said)


def difference(row: Any) -> str:
    """A table row's difference to the best rival: interval, p, and a warning where too few seeds forbid a claim."""
    few = f", n = {row.pairs}: no claim" if row.pairs < SEEDS_FOR_A_CLAIM else ""
    p = "" if math.isnan(row.p) else f", p = {row.p:.3f}" if row.p >= 0.001 else ", p < 0.001"
    return interval(row.difference, row.difference_low, row.difference_high, "+") + p + few


def interval(mean: float, low: float, high: float, sign: str = "") -> str:
    """The mean with its interval in brackets, where there is one."""
    return number(mean, sign) + ("" if math.isnan(low) else f" [{number(low, sign)}, {number(high, sign)}]")


def number(value: float, sign: str = "") -> str:
    """Three decimals; `sign="+"` writes the sign of positive numbers too."""
    return NOTHING if math.isnan(value) else f"{value:{sign}.3f}".replace("-", "−")
