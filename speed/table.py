"""Print and save the results. In: rows. Out: aligned Markdown tables, and a JSON file with the rows, the machine and the versions."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict
from itertools import groupby
from pathlib import Path

import torch

from kd_env.benchmark.versions import versions
from speed.measure import Row

HEAD = ("what", "value", "unit", "ratio", "quartiles", "to")
_LEFT = (0, 2, 5)  # columns of text, aligned to the left


def markdown(rows: Sequence[Row]) -> str:
    """Return a table with a heading for each section."""
    parts = []
    for section, members in groupby(rows, key=lambda row: row.section):
        cells = [HEAD, *(_cells(row) for row in members)]
        widths = [max(len(line[column]) for line in cells) for column in range(len(HEAD))]
        rule = tuple("-" * width if column in _LEFT else "-" * (width - 1) + ":" for column, width in enumerate(widths))
        lines = [_line(line, widths) for line in (cells[0], rule, *cells[1:])]
        parts.append("\n".join([f"### {section}", "", *lines]))
    return "\n\n".join(parts)


def save(rows: Sequence[Row], path: Path, device: torch.device, seconds: float) -> None:
    """Write the rows, the machine and the versions as JSON."""
    content = {
        "rows": [asdict(row) for row in rows],
        "machine": {
            "platform": platform.platform(),
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
        },
        "versions": versions(),
        "seconds": round(seconds, 1),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def _cells(row: Row) -> tuple[str, ...]:
    ratio = "" if row.ratio is None else _short(row.ratio)
    quartiles = "" if row.low is None or row.high is None else f"{_short(row.low)}-{_short(row.high)}"
    return row.what, _short(row.value), row.unit, ratio, quartiles, row.baseline


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    columns = enumerate(zip(cells, widths, strict=True))
    return f"| {' | '.join(cell.ljust(width) if column in _LEFT else cell.rjust(width) for column, (cell, width) in columns)} |"


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}" if abs(value) >= 0.0995 else f"{value:.2g}"
