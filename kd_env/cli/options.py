"""Options that several commands have, and how their words are read."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from kd_env.errors import InputError

MOST_SEEDS = 10_000

Out = Annotated[Path, typer.Option("--out", help="Results folder; the same command carries on where it was stopped.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress.")]
Workers = Annotated[int, typer.Option("--workers", min=0, help="Trials at a time, each on one core; 0: as many as there are cores.")]
Task = Annotated[
    str,
    typer.Option(
        "--task",
        help="Built-in, with options as domains(difficulty=0.5), folder:PATH, images:PATH, or module:function. See: kd-env list tasks.",
    ),
]
DataDir = Annotated[
    str | None,
    typer.Option("--data-dir", help="Folder of the task's data, as of GLUE (SST-2/train.tsv ...). The same as TASK(data_dir=PATH)."),
]
Student = Annotated[
    str | None,
    typer.Option(
        "--student", help="mlp, tiny-bert or tiny-vit, as mlp(width=24), or a checkpoint, as PATH(layers=0;5). Default: the task's."
    ),
]
Updates = Annotated[int | None, typer.Option("--updates", help="Student updates, the budget. Default: the task's.")]
Set = Annotated[list[str] | None, typer.Option("--set", help="key=value: any env keyword. Repeat for several. See: kd-env list settings.")]
Bank = Annotated[Path | None, typer.Option("--bank", help="A folder that kd-env bank wrote.")]
Teachers = Annotated[
    str | None,
    typer.Option(
        "--teachers",
        help="Pools, POOL/NAME, checkpoints (folder or hub id), folders of several, pool files; or module:function. Default: the task's.",
    ),
]


def read_settings(words: list[str] | None, **options: Any) -> dict[str, Any]:
    """The env keywords of ``--set``, and those that have an option of their own."""
    from kd_env import spec

    settings = spec.options(words or [])
    for name, value in options.items():
        if value is not None and settings.setdefault(name, value) is not value:
            raise InputError(f"--{name} {value} and --set {name}={settings[name]}: give one of them")
    return settings


def read_seeds(text: str) -> list[int]:
    """``0-4`` or ``0,3,7`` as numbers."""
    seeds: list[int] = []
    for part in text.split(","):
        ends = re.fullmatch(r"(\d{1,9})(?:-(\d{1,9}))?", part.strip())
        first, last = (int(ends[1]), int(ends[2] or ends[1])) if ends else (1, 0)
        if not 0 <= last - first < MOST_SEEDS:
            raise InputError(f"--seeds {text!r}: {part!r} names no seeds; expected numbers as 0-4 or 0,3,7, up to {MOST_SEEDS} of 9 digits")
        seeds += range(first, last + 1)
    return list(dict.fromkeys(seeds))


def say_notes(task: Any, quiet: bool) -> None:
    """What a user should know of a task's splits, on stderr."""
    for note in () if quiet else task.notes:
        print(f"{task.name}: {note}", file=sys.stderr)


def command() -> str:
    """The command line as it was typed."""
    return shlex.join(["kd-env", *sys.argv[1:]])
