"""The commands that look at what there is: ``kd-env list``, ``report``, ``replay`` and ``doctor``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from kd_env.cli.options import DataDir
from kd_env.errors import InputError


def list_(
    what: Annotated[
        str, typer.Argument(help="tasks, pools, policies, knowledge, rewards, observations, suites or settings. Default: these names.")
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable.")] = False,
) -> None:
    """Say what there is."""
    from kd_env.benchmark.catalogue import CATALOGUE
    from kd_env.spec import unknown

    if what and what not in CATALOGUE:
        raise unknown("list", what, CATALOGUE)
    rows = CATALOGUE[what]() if what else [{"list": name, "entries": len(rows())} for name, rows in CATALOGUE.items()]
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    if sys.stdout.isatty():  # as wide as the terminal
        from rich import box
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(*rows[0], box=box.SIMPLE_HEAD, show_lines=False)
        for row in rows:
            table.add_row(*(Text(str(value)) for value in row.values()))
        Console().print(table)
        return
    widths = {key: max(len(str(row[key])) for row in rows) for key in list(rows[0])[:-1]}
    for row in [{key: key for key in rows[0]}, *rows]:
        *first, last = row.items()
        print("  ".join(f"{value!s:<{widths[key]}}" for key, value in first) + f"  {last[1]}")


def report(directory: Annotated[Path, typer.Argument(help="A results folder.")]) -> None:
    """Write report.md, report.html and figures from a results folder's records and traces."""
    from kd_env.benchmark.report import write_report

    print(write_report(directory))


def replay(
    directory: Annotated[Path, typer.Argument(help="A results folder.")],
    trial: Annotated[str, typer.Argument(help="A trial's id: the name of its file in traces/.")],
) -> None:
    """Run a record's actions again and compare; exit 0 if equal, 1 if not."""
    from kd_env.benchmark.replay import replay as again

    differences = again(directory, trial)
    print("\n".join(differences) or f"{trial}: equal")
    raise typer.Exit(1 if differences else 0)


def doctor(
    task: Annotated[str | None, typer.Option("--task", help="Also load this task; make its pool and its bank if need be.")] = None,
    data_dir: DataDir = None,
) -> None:
    """Say what is installed, where caches are, and what is missing or in the way; exit 1 if anything is."""
    from kd_env.cli.doctor import examine

    if data_dir is not None:
        if task is None:
            raise InputError(f"--data-dir {data_dir}: of which task? give --task too")
        from kd_env import tasks

        task = tasks.with_data_dir(task, data_dir)
    facts, problems = examine(task)
    print("\n".join([*facts, *(f"PROBLEM: {problem}" for problem in problems)]))
    raise typer.Exit(1 if problems else 0)
