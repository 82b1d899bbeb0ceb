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
            help="Policy that selects the teachers, as uniform, reinforce(window=4) or module:Class. Default: auto, a race between "
            "a student without a teacher and the policies that fit the data; the best student is kept.",
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
            help="Seeds, as 0-4 or 0,3,7; the student that is best on validation is kept. A race takes one seed and adds "
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
            help="Number format of the weights: float32, float16, bfloat16, or int8 (model_int8.onnx); the model card contains its score.",
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

    Without --policy, a race compares candidates and keeps the best student; race.md says what was compared and whether teachers help.

    The folder also contains the tokenizer and a model card. The student is tiny-bert, tiny-vit, or starts from a checkpoint.
    """
    from kd_env import tasks
    from kd_env.benchmark import formats

    formats.check(export, dtype)
    settings = read_settings(set_, student=student, updates=updates)
    name = named_task(task, data_dir, text, pair, label, group, max_length)
    pool, seed_list = join_teachers(teachers), read_seeds(seeds or "0")
    if len(policies := policy or [AUTO]) > 1:
        raise InputError(f"--policy {' --policy '.join(policies)}: distill takes one policy; leave --policy out to race several")
    if policies[0] == AUTO:
        _distill_by_race(name, pool, settings, budget, seed_list, bank, out, quiet)
    elif budget is not None:
        raise InputError(f"--budget {budget}: it is the budget of a race; leave --policy out, or use --updates")
    else:
        _distill_by_policy(name, policies[0], pool, settings, seed_list, bank, out, quiet)
    for line in formats.write_formats(out, tasks.load(name), export, dtype):
        if not quiet:
            print(line, file=sys.stderr)
    print(out)


def _distill_by_race(
    task: str, pool: str | None, settings: dict[str, Any], budget: str | None, seeds: list[int], bank: Path | None, out: Path, quiet: bool
) -> None:
    from kd_env import tasks
    from kd_env.benchmark.distilled import distill_into, is_finished, require_free
    from kd_env.benchmark.progress import Progress
    from kd_env.benchmark.race.prepare import prepare_race
    from kd_env.randomness import one_thread

    if len(seeds) > 1:
        shown = ",".join(map(str, seeds))
        raise InputError(
            f"--seeds {shown}: a race starts with one seed and adds seeds itself; give one seed, and a larger --budget for more"
        )
    require_free(out)
    loaded, student = tasks.load(task), settings.pop("student", None)
    print_notes(loaded, quiet)
    with one_thread(), Progress(quiet) as progress:
        race = prepare_race(loaded, pool, student, budget, seeds[0], bank, settings, progress, command_line())
        if not is_finished(out, race):
            progress.say(distill_into(out, race, progress).verdict)


def _distill_by_policy(
    task: str, policy: str, pool: str | None, settings: dict[str, Any], seeds: list[int], bank: Path | None, out: Path, quiet: bool
) -> None:
    from kd_env import tasks
    from kd_env.benchmark.distill import distill as distill_trials
    from kd_env.benchmark.progress import Progress
    from kd_env.benchmark.trial import Trial

    directory = None if bank is None else str(bank)
    trials = [Trial(task, policy, seed, pool, directory, "distill", settings, command_line()) for seed in seeds]
    print_notes(tasks.load(task), quiet)
    with Progress(quiet) as progress:
        distill_trials(trials, out, progress)
