"""``kd-env list``: what there is by name."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any

import typer


def list_(
    what: Annotated[
        str,
        typer.Argument(
            metavar="WHAT",
            help="One of tasks, pools, policies, knowledge, rewards, credits, actions, observations, suites and settings. "
            "Default: the names of these lists.",
        ),
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """List tasks, pools, policies, suites, settings and more."""
    from kd_env.benchmark.catalogue import CATALOGUE
    from kd_env.spec import unknown

    if what and what not in CATALOGUE:
        raise unknown("list", what, CATALOGUE)
    rows = CATALOGUE[what]() if what else [{"list": name, "entries": len(rows())} for name, rows in CATALOGUE.items()]
    if as_json:
        print(json.dumps(rows, indent=1))
    elif sys.stdout.isatty():
        _print_for_terminal(rows)
    else:
        _print_plain(rows)


def _print_for_terminal(rows: list[dict[str, Any]]) -> None:
    """Print a table that is as wide as the terminal."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*rows[0], box=box.SIMPLE_HEAD, show_lines=False)
    for row in rows:
        table.add_row(*(Text(str(value)) for value in row.values()))
    Console().print(table)


def _print_plain(rows: list[dict[str, Any]]) -> None:
    """Print aligned columns, one line per row; the last column, which is the longest, is not padded."""
    widths = {key: max(len(str(row[key])) for row in rows) for key in list(rows[0])[:-1]}
    for row in [{key: key for key in rows[0]}, *rows]:
        *first, last = row.items()
        print("  ".join(f"{value!s:<{widths[key]}}" for key, value in first) + f"  {last[1]}")
