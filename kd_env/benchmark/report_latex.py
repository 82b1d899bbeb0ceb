r"""Write tables in LaTeX. In: sections of a report. Out: text for ``\input`` with the package booktabs, names escaped."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from kd_env.benchmark.overview import column_names
from kd_env.benchmark.report_claims import LEVEL
from kd_env.benchmark.report_sections import Section
from kd_env.benchmark.report_text import NO_VALUE, interval, number
from kd_env.benchmark.summary import by_score

SPECIAL: Mapping[str, str] = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "_": r"\_", "%": r"\%",
    "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "−": "$-$", "–": "--", "±": r"$\pm$", "≥": r"$\ge$",
}  # fmt: skip
HEAD = "% Made by `kd-env report --paper`. The preamble needs \\usepackage{booktabs}.\n"


def escape(text: str) -> str:
    """Return a text as LaTeX prints it."""
    return "".join(SPECIAL.get(letter, letter) for letter in text)


def scores_latex(section: Section) -> str:
    """Return the table of a setting, the highest score first.

    The highest mean of the policies that are not privileged is bold. A dagger marks what cannot be distinguished from it.
    """
    claim = section.claim
    rows = []
    for row in by_score(section.table).itertuples():
        score = escape(interval(row.test, row.test_low, row.test_high))
        name = escape(row.policy)
        if claim and row.policy == claim.winner:
            name, score = rf"\textbf{{{name}}}", rf"\textbf{{{score}}}"
        elif claim and row.policy in claim.equal:
            name += r"$^\dagger$"
        runs = f"{row.n} ({row.diverged} diverged)" if row.diverged else str(row.n)
        rows.append((name, escape(row.access), runs, score, escape(interval(row.gap, row.gap_low, row.gap_high))))
    caption = f"Mean test {section.metric} over $n$ seeds with its 95 % t interval on {section.setting}."
    note = ""
    if claim:
        note = r" Bold: the highest mean of the policies that are not privileged."
    if claim and claim.equal:
        note += (
            rf" $^\dagger$: not distinguishable from it (paired t tests, Holm-adjusted over all {claim.pairs:,} pairs,"
            rf" $p \ge {LEVEL}$)."
        )
    head = ("policy", "access", "$n$", f"test {escape(section.metric)}", "gap recovered")
    return _table(section.stem, escape(caption).replace(r"\$n\$", "$n$") + note, "llrll", head, rows)


def overview_latex(sections: Sequence[Section]) -> str:
    """Return the table of all settings: a row per policy, a column per setting. The highest mean of a column is bold."""
    columns = []
    for section in sections:
        cells = {}
        for row in section.table.itertuples():
            width = "" if math.isnan(row.test_low) else f" ± {(row.test_high - row.test_low) / 2:.3f}"
            cell = escape(number(row.test) + width)
            cells[row.policy] = rf"\textbf{{{cell}}}" if section.claim and section.claim.winner == row.policy else cell
        columns.append(cells)
    policies = sorted({policy for cells in columns for policy in cells})
    rows = [(escape(policy), *(cells.get(policy, escape(NO_VALUE)) for cells in columns)) for policy in policies]
    caption = (
        r"Mean test score over the seeds $\pm$ half of its 95 \% t interval. "
        "Bold: the highest mean of the policies of a column that are not privileged."
    )
    head = ("policy", *(escape(name) for name in column_names([section.setting for section in sections])))
    return _table("all-settings", caption, "l" * len(head), head, rows)


def _table(label: str, caption: str, columns: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = "".join(f"    {' & '.join(row)} \\\\\n" for row in rows)
    return (
        f"{HEAD}\\begin{{table}}\n  \\centering\n  \\caption{{{caption}}}\n  \\label{{tab:{label}}}\n"
        f"  \\begin{{tabular}}{{{columns}}}\n    \\toprule\n    {' & '.join(head)} \\\\\n    \\midrule\n{lines}"
        "    \\bottomrule\n  \\end{tabular}\n\\end{table}\n"
    )
