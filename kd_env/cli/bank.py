"""``kd-env bank``: compute the outputs of teachers once and keep them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from kd_env.cli.options import (
    DataDir,
    GroupColumn,
    LabelColumn,
    MaxLength,
    PairColumn,
    Quiet,
    Task,
    Teachers,
    TextColumn,
    join_teachers,
    named_task,
    print_notes,
)
from kd_env.printable import one_line, printable


def bank(
    task: Task,
    out: Annotated[Path | None, typer.Option("--out", metavar="DIR", help="Folder for the bank. Default: a folder of the cache.")] = None,
    teachers: Teachers = None,
    layers: Annotated[
        bool, typer.Option("--layers", help="Also keep the [CLS] state of each layer, for knowledge types that compare layers.")
    ] = False,
    attention: Annotated[
        bool, typer.Option("--attention", help="Also keep the attention of the last layer, for knowledge types that compare it.")
    ] = False,
    half: Annotated[bool, typer.Option("--half", help="Store float16 instead of float32, which is half the size.")] = False,
    quiet: Quiet = False,
    data_dir: DataDir = None,
    text: TextColumn = None,
    pair: PairColumn = None,
    label: LabelColumn = None,
    group: GroupColumn = None,
    max_length: MaxLength = None,
) -> None:
    """Compute the outputs of the teachers and keep them on disk.

    A bank holds the outputs for every train, reward and validation example. Other commands make the bank they need by themselves.
    """
    from kd_env import tasks
    from kd_env.bank.assumptions import cut_lines, teacher_lines
    from kd_env.bank.bank import open_bank
    from kd_env.benchmark.progress import Progress
    from kd_env.teachers import load_pool

    loaded, named_pool = tasks.load(named_task(task, data_dir, text, pair, label, group, max_length)), join_teachers(teachers)
    print_notes(loaded, quiet)
    keep = frozenset(output for output, asked in (("layers", layers), ("attention", attention)) if asked)
    with Progress(quiet) as progress:
        pool = load_pool(loaded.defaults.pool if named_pool is None else named_pool, loaded)
        opened = open_bank(loaded, pool, out, progress.bank, keep, half)
    print(one_line(f"bank {opened.directory}: {', '.join(opened.teachers)}; fingerprint {opened.fingerprint[:16]}"))
    print(printable("\n".join(teacher_lines(loaded, pool, opened))))
    for line in () if quiet else cut_lines(loaded, pool, loaded.defaults.student):
        print(one_line(line), file=sys.stderr)
