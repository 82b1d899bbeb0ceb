"""``kd-env distill``: distil one student into a Transformers checkpoint."""

from __future__ import annotations

from typing import Annotated

import typer

from kd_env.cli.options import (
    Bank,
    Checkpoint,
    DataDir,
    GroupColumn,
    LabelColumn,
    MaxLength,
    PairColumn,
    Quiet,
    Set,
    Student,
    Task,
    Teachers,
    TextColumn,
    Updates,
    command_line,
    join_teachers,
    named_task,
    print_notes,
    read_seeds,
    read_settings,
)


def distill(
    task: Task,
    policy: Annotated[
        str,
        typer.Option(
            "--policy", metavar="POLICY", help="Policy that selects the teachers, as uniform, reinforce(window=4) or module:Class."
        ),
    ],
    out: Checkpoint,
    teachers: Teachers = None,
    student: Student = None,
    updates: Updates = None,
    seeds: Annotated[
        str,
        typer.Option("--seeds", metavar="SEEDS", help="Seeds, as 0-4 or 0,3,7; the student that is best on validation is kept."),
    ] = "0",
    set_: Set = None,
    bank: Bank = None,
    data_dir: DataDir = None,
    text: TextColumn = None,
    pair: PairColumn = None,
    label: LabelColumn = None,
    group: GroupColumn = None,
    max_length: MaxLength = None,
    quiet: Quiet = False,
) -> None:
    """Distil a student and save it as a Transformers checkpoint.

    The checkpoint has its tokenizer and a model card. Students are tiny-bert, tiny-vit or start from a checkpoint.
    """
    from kd_env import tasks
    from kd_env.benchmark.distill import distill as distill_best
    from kd_env.benchmark.progress import Progress
    from kd_env.benchmark.trial import Trial

    settings = read_settings(set_, student=student, updates=updates)
    name, pool = named_task(task, data_dir, text, pair, label, group, max_length), join_teachers(teachers)
    directory = None if bank is None else str(bank)
    trials = [Trial(name, policy, seed, pool, directory, "distill", settings, command_line()) for seed in read_seeds(seeds)]
    print_notes(tasks.load(name), quiet)
    with Progress(quiet) as progress:
        print(distill_best(trials, out, progress))
