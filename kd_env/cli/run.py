"""``kd-env run``: distil students with policies and seeds of one's choice."""

from __future__ import annotations

from typing import Annotated

import typer

from kd_env.cli.options import (
    Bank,
    DataDir,
    GroupColumn,
    LabelColumn,
    MaxLength,
    Out,
    PairColumn,
    Quiet,
    Set,
    Student,
    Task,
    Teachers,
    TextColumn,
    Updates,
    Workers,
    command_line,
    join_teachers,
    named_task,
    print_notes,
    read_seeds,
    read_settings,
)
from kd_env.cli.trials import run_trials


def run(
    task: Task,
    policy: Annotated[
        list[str],
        typer.Option(
            "--policy",
            metavar="POLICY",
            help="Policy, with options as in reinforce(window=4); sb3:PPO(n_steps=16); or module:Class. Can be repeated. "
            "See kd-env list policies.",
        ),
    ],
    out: Out,
    teachers: Teachers = None,
    student: Student = None,
    updates: Updates = None,
    seeds: Annotated[str, typer.Option("--seeds", metavar="SEEDS", help="Seeds, as 0-4 or 0,3,7.")] = "0-4",
    set_: Set = None,
    bank: Bank = None,
    population: Annotated[
        int,
        typer.Option("--population", min=1, metavar="N", help="Number of seeds that learn at once, which is faster for small students."),
    ] = 1,
    no_test: Annotated[bool, typer.Option("--no-test", help="Do not evaluate on test, for choosing settings by validation.")] = False,
    data_dir: DataDir = None,
    text: TextColumn = None,
    pair: PairColumn = None,
    label: LabelColumn = None,
    group: GroupColumn = None,
    max_length: MaxLength = None,
    workers: Workers = 0,
    quiet: Quiet = False,
) -> None:
    """Distil students with one or several policies, with a report.

    Each policy distils one student for each seed. Trials that are finished already are not run again.
    """
    from kd_env import tasks
    from kd_env.benchmark.trial import Trial

    settings = read_settings(set_, student=student, updates=updates)
    task, pool = (
        named_task(task, data_dir, text, pair, label, group, max_length),
        join_teachers(teachers),
    )  # a record's task carries all that decides it
    trials = [
        Trial(task, name, seed, pool, None if bank is None else str(bank), "run", settings, command_line(), not no_test)
        for seed in read_seeds(seeds)
        for name in dict.fromkeys(policy)
    ]
    print_notes(tasks.load(task), quiet)
    print(run_trials(trials, out, workers, quiet, population))
