"""Write the text of a report. In: the table and the records of a setting. Out: a paragraph of conclusions, and formatted numbers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

from kd_env.benchmark.records import Record
from kd_env.benchmark.summary import RIVALS, SEEDS_FOR_A_CLAIM, base_name, uses_reward_labels

NO_VALUE = "–"


def conclusions(table: pd.DataFrame, records: Sequence[Record]) -> str:
    """Return a paragraph with the statements that the table of a setting supports."""
    sentences = [
        *_best_policy(table, records),
        *_differences_to_the_rival(table),
        *_too_few_seeds(table),
        *_diverged(records),
    ]
    return " ".join(sentences)


def difference(row: Any) -> str:
    """Format the difference of a table row to the best rival: interval, p, and a note if there are too few seeds for a claim."""
    return difference_text(row.difference, row.difference_low, row.difference_high, row.p, row.pairs)


def difference_text(mean: float, low: float, high: float, p: float, pairs: int) -> str:
    """Format a paired difference: interval, p, and a note if there are too few pairs for a claim."""
    few = f", n = {pairs}: no claim" if pairs < SEEDS_FOR_A_CLAIM else ""
    shown_p = "" if math.isnan(p) else f", p = {p:.3f}" if p >= 0.001 else ", p < 0.001"
    return interval(mean, low, high, "+") + shown_p + few


def interval(mean: float, low: float, high: float, sign: str = "") -> str:
    """Format a mean, with its interval in brackets if there is one."""
    return number(mean, sign) + ("" if math.isnan(low) else f" [{number(low, sign)}, {number(high, sign)}]")


def number(value: float, sign: str = "") -> str:
    """Format a number with three decimals; `sign="+"` writes the sign of positive numbers too."""
    return NO_VALUE if math.isnan(value) else f"{value:{sign}.3f}".replace("-", "−")


def _best_policy(table: pd.DataFrame, records: Sequence[Record]) -> Iterator[str]:
    candidates = table[(table["access"] != "privileged") & table["test"].notna()]
    if not all(record["config"].get("test", True) for record in records):
        yield "The test split was not evaluated (--no-test): use these trials to choose settings by validation, not as results."
    elif len(candidates):
        best = candidates.loc[candidates["validation"].idxmax()]  # not by test, which then would no longer be new
        yield (
            f"Among policies that are not privileged, {best.policy} ({best.access}) is best on validation: mean {records[0]['metric']} "
            f"{number(best.validation)} on validation and {number(best.test)} on test, n = {best.n}. A highest mean alone does not show "
            "that a policy is better."
        )


def _differences_to_the_rival(table: pd.DataFrame) -> Iterator[str]:
    if not table["rival"].any():
        diverged = sorted(policy for policy in table["policy"] if base_name(policy) in RIVALS)
        if diverged:
            yield f"All runs of the rivals with the same labels diverged ({', '.join(diverged)}), so nothing is compared with them."
        elif table["access"].map(uses_reward_labels).any():
            yield (
                f"No rival with the same labels was run in this setting ({', '.join(RIVALS)}), so these results do not show that learning "
                "to select helps."
            )
        return
    yield f"The best rival with the same labels, chosen on validation, is {table.loc[table['rival'], 'policy'].iloc[0]}."
    learned = table[(table["pairs"] >= SEEDS_FOR_A_CLAIM) & ~table["policy"].map(base_name).isin(RIVALS)]
    for outcome, rows in (
        ("significantly above 0 (Holm-adjusted p < 0.05)", learned[(learned["difference"] > 0) & (learned["p"] < 0.05)]),
        ("significantly below 0 (Holm-adjusted p < 0.05)", learned[(learned["difference"] < 0) & (learned["p"] < 0.05)]),
        ("not significant (Holm-adjusted p ≥ 0.05)", learned[~(learned["p"] < 0.05)]),
    ):
        if len(rows):
            names = "; ".join(f"{row.policy} ({difference(row)})" for row in rows.itertuples())
            yield f"The difference in test score to this rival is {outcome} for {names}."


def _too_few_seeds(table: pd.DataFrame) -> Iterator[str]:
    few = table[table["n"] < SEEDS_FOR_A_CLAIM]
    if len(few) == len(table):
        yield f"With fewer than {SEEDS_FOR_A_CLAIM} seeds (n = {table['n'].max()}), no policy can be called better than another."
    elif len(few):
        yield f"With fewer than {SEEDS_FOR_A_CLAIM} seeds, these policies cannot be called better or worse: {', '.join(few['policy'])}."
    unpaired = table[(table["n"] >= SEEDS_FOR_A_CLAIM) & (table["pairs"] > 0) & (table["pairs"] < SEEDS_FOR_A_CLAIM)]
    if len(unpaired):
        yield (
            f"With fewer than {SEEDS_FOR_A_CLAIM} seeds that they share with the best rival, these policies cannot be compared with it: "
            f"{', '.join(unpaired['policy'])}."
        )


def _diverged(records: Sequence[Record]) -> Iterator[str]:
    if trials := [record["trial"] for record in records if record["diverged"]]:
        yield (
            f"{len(trials)} of {len(records)} trials diverged ({', '.join(trials)}). A trial without a test score is not part of the "
            "means, which makes its policy look better than it is."
        )
