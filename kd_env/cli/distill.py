"""``kd-env distill``: distil one student into a Transformers checkpoint."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from kd_env.cli.options import (
    TASK_HELP,
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
    out: Checkpoint,
    task: Annotated[
        str | None,
        typer.Option("--task", metavar="TASK", help=f"{TASK_HELP} With --from, it is needed if RESULTS has students of several tasks."),
    ] = None,
    policy: Annotated[
        list[str] | None,
        typer.Option(
            "--policy",
            metavar="POLICY",
            help="Policy that selects the teachers, e.g. uniform, reinforce(window=4) or module:Class. Default: auto, a race between "
            "a student without a teacher and the policies that fit the data; the best student is kept.",
        ),
    ] = None,
    from_: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="RESULTS",
            help="Take the student with the best validation score that kd-env run kept in RESULTS, and teach nothing.",
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
            help="Budget of the race: a number of student updates (2000) or a time (10min). Default: the cost of two students.",
        ),
    ] = None,
    seeds: Annotated[
        str | None,
        typer.Option(
            "--seeds",
            metavar="SEEDS",
            help="Seeds, e.g. 0-4 or 0,3,7; the student that is best on validation is kept. A race takes one seed and adds "
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
            help="Number format of the weights: float32, float16, bfloat16, or int8 (model_int8.onnx); the model card contains its score. "
            "Default: float32, or the format that a finished student has.",
        ),
    ] = "",
    trim_vocabulary: Annotated[
        bool,
        typer.Option(
            "--trim-vocabulary",
            help="Remove tokens that the texts of train, reward and validation do not contain from embeddings and tokenizer. Outputs on "
            "these texts stay equal, which is checked; other words are read as shorter pieces. It pays for small students, whose "
            "embeddings are most of their size.",
        ),
    ] = False,
    push: Annotated[
        str,
        typer.Option(
            "--push",
            metavar="ORG/NAME",
            help="Upload the finished folder to this repository of the Hugging Face Hub. A new repository is private. Log in before with "
            "hf auth login. Default: nothing is uploaded.",
        ),
    ] = "",
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
    """Distil a student and save it as a checkpoint.

    Without --policy, a race compares candidates and keeps the best student; race.md says what was compared and whether teachers help. With
    --from, the best student of kd-env run is taken as it is.

    The folder also contains the tokenizer and a model card. The student is tiny-bert, tiny-vit, a network such as resnet8, or starts from
    a checkpoint; an mlp cannot be saved, so name a student with --student where it is the task's own.
    """
    from kd_env import tasks
    from kd_env.benchmark.shipping import Shipping
    from kd_env.benchmark.trimmed import recover
    from kd_env.paths import claim_folder

    shipping = Shipping(trim_vocabulary, export, dtype, push)
    if (line := shipping.check()) and not quiet:
        print(line, file=sys.stderr)
    with claim_folder(out, "distilling into it"):
        recover(out)
    options = {"text": text, "pair": pair, "label": label, "group": group, "max_length": max_length}
    name = _name(task, data_dir, options)
    if from_ is not None:
        taught = {"--policy": policy, "--teachers": teachers, "--updates": updates, "--budget": budget, "--seeds": seeds}
        name = _distill_kept(from_, name, student, shipping, {**taught, "--set": set_, "--bank": bank}, out, quiet)
    elif name is None:
        raise InputError("Missing option '--task': name a task of kd-env list tasks, or give the results of kd-env run with --from RESULTS")
    else:
        settings = read_settings(set_, student=student, updates=updates)
        pool, seed_list = join_teachers(teachers), read_seeds(seeds or "0")
        if len(policies := policy or [AUTO]) > 1:
            raise InputError(f"--policy {' --policy '.join(policies)}: distill takes one policy; leave --policy out to race several")
        if budget is not None and policies[0] != AUTO:
            raise InputError(f"--budget {budget}: it is the budget of a race; leave --policy out, or use --updates")
        loaded = tasks.load(name)
        shipping.check_student(str(settings.get("student", loaded.defaults.student)), loaded)
        if policies[0] == AUTO:
            _distill_by_race(name, pool, settings, budget, seed_list, bank, out, quiet)
        else:
            _distill_by_policy(name, policies[0], pool, settings, seed_list, bank, out, quiet)
    with claim_folder(out, "distilling into it"):
        for line in shipping.run(out, tasks.load(name)):
            if not quiet:
                print(line, file=sys.stderr)
    print(out)


def _name(task: str | None, data_dir: str | None, options: dict[str, Any]) -> str | None:
    """Return the name of the task with its options, or ``None`` without a task."""
    if task is not None:
        return named_task(task, data_dir, **options)
    if unused := [name for name, value in {"data_dir": data_dir, **options}.items() if value is not None]:
        raise InputError(f"--{unused[0].replace('_', '-')}: it is an option of a task; name the task with --task")
    return None


def _distill_kept(
    results: Path, task: str | None, student: str | None, shipping: Any, refused: dict[str, Any], out: Path, quiet: bool
) -> str:
    """Save the best kept student of ``results``; return the name of its task."""
    from kd_env import tasks
    from kd_env.benchmark.distill_kept import distill_kept, find_best
    from kd_env.benchmark.progress import Progress

    for option, value in refused.items():
        if value is not None:
            raise InputError(f"{option}: --from {results} takes a student as it was taught; leave {option} out, or leave --from out")
    kept = find_best(results, task, student)
    shipping.check_student(kept.student, tasks.load(kept.task))
    with Progress(quiet) as progress:
        distill_kept(results, kept, out, progress, command_line())
    return kept.task


def _distill_by_race(
    task: str, pool: str | None, settings: dict[str, Any], budget: str | None, seeds: list[int], bank: Path | None, out: Path, quiet: bool
) -> None:
    from kd_env import tasks
    from kd_env.benchmark.distilled import distill_into, is_finished, require_free
    from kd_env.benchmark.progress import Progress
    from kd_env.benchmark.race.prepare import prepare_race
    from kd_env.randomness import reproducible

    if len(seeds) > 1:
        shown = ",".join(map(str, seeds))
        raise InputError(
            f"--seeds {shown}: a race starts with one seed and adds seeds itself; give one seed, and a larger --budget for more"
        )
    require_free(out)
    loaded, student = tasks.load(task), settings.pop("student", None)
    print_notes(loaded, quiet)
    with reproducible(), Progress(quiet) as progress:
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
