"""``kd-env distill``: distil one student into a Transformers checkpoint."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

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
from kd_env.errors import InputError

AUTO = "auto"


def distill(
    task: Task,
    out: Checkpoint,
    policy: Annotated[
        list[str] | None,
        typer.Option(
            "--policy",
            metavar="POLICY",
            help="Policy that selects the teachers, as uniform, reinforce(window=4) or module:Class. Default: auto, a race of the "
            "student without a teacher and of the policies that fit the data, which leaves the best student.",
        ),
    ] = None,
    teachers: Teachers = None,
    student: Student = None,
    updates: Updates = None,
    budget: Annotated[
        str | None,
        typer.Option(
            "--budget",
            metavar="BUDGET",
            help="Budget of the race: updates of all students, as 2000, or a time, as 10min. Default: twice the updates of one student.",
        ),
    ] = None,
    seeds: Annotated[
        str | None,
        typer.Option(
            "--seeds",
            metavar="SEEDS",
            help="Seeds, as 0-4 or 0,3,7; the student that is best on validation is kept. A race takes the first seed and adds "
            "seeds itself. Default: 0.",
        ),
    ] = None,
    export: Annotated[
        str, typer.Option("--export", metavar="FORMAT", help="onnx writes model.onnx too, with the same outputs in ONNX Runtime.")
    ] = "",
    dtype: Annotated[
        str,
        typer.Option(
            "--dtype",
            metavar="DTYPE",
            help="Number format of the weights: float32, float16, bfloat16, or int8 (model_int8.onnx); the card has its score.",
        ),
    ] = "float32",
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

    Without --policy, candidates race and the best student is kept; race.md in the folder says what was compared and whether teachers help.

    The checkpoint has its tokenizer and a model card. Students are tiny-bert, tiny-vit or start from a checkpoint.
    """
    from kd_env import tasks
    from kd_env.benchmark import ship

    ship.check(export, dtype)
    settings = read_settings(set_, student=student, updates=updates)
    name, pool, numbers = (
        named_task(task, data_dir, text, pair, label, group, max_length),
        join_teachers(teachers),
        read_seeds(seeds or "0"),
    )
    if len(policies := policy or [AUTO]) > 1:
        raise InputError(f"--policy {' --policy '.join(policies)}: distill takes one policy; leave --policy out to race several")
    if policies[0] == AUTO:
        _race(name, pool, settings, budget, numbers, bank, out, quiet)
    elif budget is not None:
        raise InputError(f"--budget {budget}: it is the budget of a race; leave --policy out, or give --updates")
    else:
        _one_policy(name, policies[0], pool, settings, numbers, bank, out, quiet)
    for line in ship.ship(out, tasks.load(name), export, dtype):
        if not quiet:
            print(line, file=sys.stderr)
    print(out)


def _race(
    task: str, pool: str | None, settings: dict[str, Any], budget: str | None, seeds: list[int], bank: Path | None, out: Path, quiet: bool
) -> None:
    from kd_env import tasks
    from kd_env.benchmark.distilled import distill_into, is_finished
    from kd_env.benchmark.progress import Progress
    from kd_env.benchmark.race.set_up import set_up
    from kd_env.randomness import one_thread

    if len(seeds) > 1:
        raise InputError("--seeds: a race begins with one seed and adds seeds itself; give one, and a larger --budget for more")
    loaded, student = tasks.load(task), settings.pop("student", None)
    print_notes(loaded, quiet)
    with one_thread(), Progress(quiet) as progress:
        ready = set_up(loaded, pool, student, budget, seeds[0], bank, settings, progress, command_line())
        if not is_finished(out, ready):
            progress.say(distill_into(out, ready, progress).verdict.replace("**", ""))


def _one_policy(
    task: str, policy: str, pool: str | None, settings: dict[str, Any], seeds: list[int], bank: Path | None, out: Path, quiet: bool
) -> None:
    from kd_env import tasks
    from kd_env.benchmark.distill import distill as distill_best
    from kd_env.benchmark.progress import Progress
    from kd_env.benchmark.trial import Trial

    directory = None if bank is None else str(bank)
    trials = [Trial(task, policy, seed, pool, directory, "distill", settings, command_line()) for seed in seeds]
    print_notes(tasks.load(task), quiet)
    with Progress(quiet) as progress:
        distill_best(trials, out, progress)
