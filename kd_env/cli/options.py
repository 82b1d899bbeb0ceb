"""Options that several commands have, and functions that read their values."""

from __future__ import annotations

import os
import re
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from kd_env.errors import InputError
from kd_env.printable import one_line

MAX_WIDTH = 72
"""Length of a line of an example; the help is 80 wide."""

Out = Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for the results. The same command resumes a run that was stopped.")]
Checkpoint = Annotated[
    Path, typer.Option("--out", metavar="DIR", help="Folder for the checkpoint. The same command resumes a run that was stopped.")
]
Quiet = Annotated[bool, typer.Option("--quiet", help="Show no progress and no notes about the data.")]
Workers = Annotated[
    int, typer.Option("--workers", min=0, metavar="N", help="Number of trials at the same time, one core each; 0 uses all cores.")
]
Executor = Annotated[
    str,
    typer.Option(
        "--executor",
        metavar="NAME",
        help="What runs the trials: local (this process), process (--workers processes), or ray (a Ray cluster, RAY_ADDRESS or this "
        "machine; needs kd-env[ray]).",
    ),
]
GpusPerTrial = Annotated[
    float,
    typer.Option(
        "--gpus-per-trial", min=0.0, metavar="G", help="Part of a GPU that Ray reserves for a trial, and for a shard of a bank, e.g. 0.25."
    ),
]
CheckpointMinutes = Annotated[
    float, typer.Option("--checkpoint-minutes", min=0.0, metavar="MIN", help="Minutes between two saves of unfinished work.")
]
TensorBoard = Annotated[
    bool,
    typer.Option("--tensorboard", help="Log each trial in DIR/tensorboard: validation, reward, loss and the teachers' weights."),
]
Paper = Annotated[bool, typer.Option("--paper", help="Write DIR/paper/ too: figures as PDF and SVG, LaTeX tables, a text on methods.")]
TASK_HELP = (
    "Built-in task, with options as in domains(difficulty=0.5); folder:PATH or images:PATH with your own data; "
    "or module:function. See kd-env list tasks."
)
Task = Annotated[str, typer.Option("--task", metavar="TASK", help=TASK_HELP)]
DataDir = Annotated[
    str | None,
    typer.Option("--data-dir", metavar="DIR", help="Folder of the task's data, for example of GLUE. Same as TASK(data_dir=DIR)."),
]
TextColumn = Annotated[
    str | None,
    typer.Option(
        "--text", metavar="COLUMN", help="Column of the text in files of your own. Same as folder:PATH(text=COLUMN). Default: sentence."
    ),
]
PairColumn = Annotated[
    str | None, typer.Option("--pair", metavar="COLUMN", help="Column of the second text, if each example is a pair. Default: sentence2.")
]
LabelColumn = Annotated[str | None, typer.Option("--label", metavar="COLUMN", help="Column of the class. Default: label.")]
GroupColumn = Annotated[str | None, typer.Option("--group", metavar="COLUMN", help="Column of the group. Default: group or domain.")]
MaxLength = Annotated[
    int | None,
    typer.Option(
        "--max-length",
        metavar="N",
        help="Tokens of a text that built-in models and students read. Same as TASK(max_length=N). Default: 128.",
    ),
]
Student = Annotated[
    str | None,
    typer.Option(
        "--student",
        metavar="STUDENT",
        help="Architecture, e.g. mlp(width=24), resnet8, tiny-bert or tiny-vit; a checkpoint to start from (an encoder of texts, "
        "ViT, ResNet, ConvNeXt, MobileNet ...), e.g. PATH(layers=0;5); or module:Class. Default: the task's.",
    ),
]
Updates = Annotated[int | None, typer.Option("--updates", metavar="N", help="Number of student updates, the budget. Default: the task's.")]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change a setting of the environment, e.g. --set kd_weight=0.5. Can be repeated. See kd-env list settings.",
    ),
]
Bank = Annotated[Path | None, typer.Option("--bank", metavar="DIR", help="Folder that kd-env bank wrote. Default: a bank in the cache.")]
Teachers = Annotated[
    list[str] | None,
    typer.Option(
        "--teachers",
        metavar="TEACHERS",
        help="Any of these, separated by commas; the option can be repeated: a pool, POOL/NAME, a checkpoint (folder or hub id), also as "
        "'PATH(classes=THEIRS=YOURS;THEIRS=YOURS)', a folder of checkpoints, a pool file, "
        "heads(TEACHER), faculty(CHECKPOINT) for a checkpoint of other classes, or module:function. Default: the task's pool. See "
        "kd-env list pools.",
    ),
]


def named_task(
    task: str,
    data_dir: str | None = None,
    text: str | None = None,
    pair: str | None = None,
    label: str | None = None,
    group: str | None = None,
    max_length: int | None = None,
) -> str:
    """Return the name of a task with the options that were given on the command line, so that it carries all that decides the task."""
    from kd_env import tasks

    return tasks.with_options(tasks.with_data_dir(task, data_dir), text=text, pair=pair, label=label, group=group, max_length=max_length)


def join_teachers(items: list[str] | None) -> str | None:
    """Return the text of a pool from the values of ``--teachers``."""
    return ",".join(items) if items else None


def read_settings(items: list[str] | None, **options: Any) -> dict[str, Any]:
    """Return the settings given with ``--set``, and those that have an option of their own.

    Args:
        items: texts ``key=value``.
        **options: values of the other options by name, ``None`` where they are not given.

    Raises:
        InputError: an item is malformed, or a setting is given twice.
    """
    from kd_env import spec

    settings = spec.options(items or [])
    for name, value in options.items():
        if value is not None and settings.setdefault(name, value) is not value:
            raise InputError(f"--{name} {value} and --set {name}={settings[name]}: give one of them")
    return settings


def read_seeds(text: str) -> list[int]:
    """Return the seeds that a text as ``0-4`` or ``0,3,7`` names.

    Raises:
        InputError: a part is not a number or a range, or names too many seeds.
    """
    from kd_env import spec

    return spec.seeds(text, "--seeds")


def print_notes(task: Any, quiet: bool) -> None:
    """Print on stderr what a user should know of a task's splits."""
    for note in () if quiet else task.notes:
        print(one_line(f"{task.name}: {note}"), file=sys.stderr)


def num_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def command_line() -> str:
    """Return the command line as it was typed."""
    return shlex.join(["kd-env", *sys.argv[1:]])


def examples(*commands: str) -> str:
    r"""Return the end of a help text that lists example commands.

    A long command is continued on the next line, as in a shell. ``\b`` keeps Click from joining the lines.
    """
    lines = ["\b", "Examples:"]
    for command in commands:
        first, *options = re.split(r" (?=--)", command)
        lines.append(f"  {first}")
        for option in options:
            if len(lines[-1]) + len(option) > MAX_WIDTH:
                lines[-1] += " \\"
                lines.append(f"      {option}")
            else:
                lines[-1] += f" {option}"
    return "\n".join(lines)
