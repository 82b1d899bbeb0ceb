"""Make the tables of report.html. In: sections. Out: tables whose cells know the number or the text by which they are sorted."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from kd_env.analysis.figures import Styles
from kd_env.benchmark.report_sections import Section, Table, costs_table, results_table, score_cells
from kd_env.benchmark.summary import by_score

DASH_ARRAYS = {"-": "none", "--": "5 2.5", ":": "1.5 2.5", "-.": "6 2 1.5 2"}

BEST = "★ highest mean"
EQUAL = "≈ not distinguishable from"


class Cell(NamedTuple):
    """A cell: its text, and the value by which a column is sorted (the text itself if it is empty)."""

    text: str
    value: str = ""


@dataclass(frozen=True)
class Row:
    """A row of a table, with what it can be filtered by.

    Attributes:
        policy: name of the policy.
        access: its access class.
        colour: number of its colour.
        dashes: dash array of its lines.
        mark: a word on its place in the table.
        cells: the cells after the policy.
    """

    policy: str
    access: str
    colour: int
    dashes: str
    mark: str
    cells: Sequence[Cell]


@dataclass(frozen=True)
class PolicyTable:
    """A table with a row for each policy. The policy is the first column."""

    caption: str
    head: Sequence[str]
    rows: Sequence[Row]


def score_page_table(section: Section, styles: Styles) -> PolicyTable:
    """Return the table of scores, the highest score first."""
    results = results_table(section)
    rows = []
    for row in by_score(section.table).itertuples():
        texts = score_cells(row)
        numbers = (row.n, row.test, row.validation, row.gap, row.overfit, 0.0 if row.rival else row.difference)
        n, test, *others = [Cell(text, _sortable(value)) for text, value in zip(texts, numbers, strict=True)]
        rows.append(_row(row.policy, row.access, _mark(section, row.policy), [test, n, *others, Cell(row.access)], styles))
    head = ("policy", results.head[3], "n", *results.head[4:], "access")
    legend = "" if section.claim is None or not section.claim.equal else f" {BEST}; {EQUAL} {section.claim.winner}."
    return PolicyTable(results.caption + legend, head, rows)


def cost_page_table(section: Section, styles: Styles) -> PolicyTable:
    """Return the table of costs, in the order of the scores."""
    costs = costs_table(by_score(section.table))
    access = dict(zip(section.table["policy"], section.table["access"], strict=True))
    rows = [_row(policy, access[policy], "", [leading_number(text) for text in cells], styles) for policy, *cells in costs.rows]
    return PolicyTable(costs.caption, costs.head, rows)


def overview_page_table(overview: Table, sections: Sequence[Section], styles: Styles) -> PolicyTable:
    """Return the table of all settings, in the order of the policies' mean rank over the settings."""
    ranks: dict[str, list[float]] = {}
    for section in sections:
        tested = section.table[section.table["test"].notna()]
        for policy, rank in zip(tested["policy"], tested["test"].rank(ascending=False, pct=True), strict=True):
            ranks.setdefault(policy, []).append(float(rank))
    rows, access = [], ""
    for first, policy, *cells in overview.rows:
        access = first or access
        rows.append(_row(policy, access, "", [*(leading_number(text) for text in cells[1:]), Cell(cells[0]), Cell(access)], styles))
    rows.sort(key=lambda row: sum(ranks[row.policy]) / len(ranks[row.policy]) if row.policy in ranks else math.inf)
    caption = overview.caption + " The order is that of the mean rank over the settings."
    return PolicyTable(caption, ("policy", *overview.head[3:], "paper", "access"), rows)


def across_page_table(table: Table, access: Mapping[str, str], styles: Styles) -> PolicyTable:
    """Return the table of the comparison over settings."""
    rows = [_row(policy, access[policy], "", [leading_number(text) for text in cells], styles) for policy, *cells in table.rows]
    return PolicyTable(table.caption, table.head, rows)


def filters(sections: Sequence[Section]) -> dict[str, list[str]]:
    """Return the different values of what the page can be filtered by, for each that has several."""
    values: Mapping[str, set[str]] = {
        "task": {section.setting.task for section in sections},
        "pool": {section.setting.pool for section in sections},
        "access": {access for section in sections for access in section.table["access"]},
    }
    return {name: sorted(of_name) for name, of_name in values.items() if len(of_name) > 1}


def leading_number(text: str) -> Cell:
    """Return a cell that is sorted by the number at the start of its text, if there is one."""
    number = re.match(r"[+−-]?[\d,]*\.?\d+(e[+-]?\d+)?", text)
    return Cell(text, number[0].replace(",", "").replace("−", "-") if number else "")


def _mark(section: Section, policy: str) -> str:
    if section.claim is None:
        return ""
    return BEST if policy == section.claim.winner else EQUAL[0] if policy in section.claim.equal else ""


def _row(policy: str, access: str, mark: str, cells: Sequence[Cell], styles: Styles) -> Row:
    style = styles[policy]
    return Row(policy, access, style.hue, DASH_ARRAYS[style.dashes], mark, cells)


def _sortable(value: Any) -> str:
    return "" if math.isnan(value) else repr(float(value))
