"""``kd-env report``: the report of a results folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kd_env.cli.options import Paper


def report(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of results.")],
    paper: Paper = False,
) -> None:
    """Write the report of a results folder again.

    It consists of report.md, report.html and figures/, made from the records and traces in the folder.
    --paper adds DIR/paper/ for a paper in LaTeX.
    """
    from kd_env.benchmark.report import write_report

    print(write_report(directory, paper))
