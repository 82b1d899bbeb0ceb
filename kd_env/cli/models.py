"""The commands that leave a model: ``kd-env teach`` and ``kd-env distill``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kd_env.cli.options import (
    Bank,
    DataDir,
    Quiet,
    Set,
    Student,
    Task,
    Teachers,
    Updates,
    command,
    read_seeds,
    read_settings,
    say_notes,
)
from kd_env.errors import InputError

Model = Annotated[
    str | None,
    typer.Option("--model", help="A Transformers folder or hub id (its head will be new), tiny-bert or tiny-vit, with options."),
]
Checkpoint = Annotated[Path, typer.Option("--out", help="Folder of the checkpoint; the same command carries on where it was stopped.")]


def teach(
    task: Task,
    out: Checkpoint,
    model: Model = None,
    pool: Annotated[
        Path | None, typer.Option("--pool", help="A .json or .toml file of several teachers, each with name and model: all of them.")
    ] = None,
    groups: Annotated[str, typer.Option("--groups", help="Groups of the task to learn from, commas between. Default: all.")] = "",
    fraction: Annotated[float | None, typer.Option("--fraction", help="Part of the examples to learn from, drawn by the seed.")] = None,
    folds: Annotated[
        int | None, typer.Option("--folds", help="So many models, each trained without its part; what they say was not memorised.")
    ] = None,
    epochs: Annotated[int | None, typer.Option("--epochs", help="At most. Default: 3 of a checkpoint, 20 of a built-in model.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Draws the new weights and the order of the data. Default: 0.")] = None,
    label_noise: Annotated[float | None, typer.Option("--label-noise", help="Part of the labels made random.")] = None,
    batch_size: Annotated[int | None, typer.Option("--batch-size", help="Examples an update. Default: 32.")] = None,
    lr: Annotated[float | None, typer.Option("--lr", help="Peak learning rate. Default: 5e-5 of a checkpoint, 1e-3 of the others.")] = None,
    max_length: Annotated[int | None, typer.Option("--max-length", help="Tokens of a text. Default: 128.")] = None,
    quiet: Quiet = False,
    data_dir: DataDir = None,
) -> None:
    """Fine-tune a teacher on the train split, or a pool of them; each is a Transformers checkpoint. Stops early on a slice of train."""
    given = {
        "epochs": epochs,
        "seed": seed,
        "label_noise": label_noise,
        "batch_size": batch_size,
        "lr": lr,
        "max_length": max_length,
        "fraction": fraction,
    }
    chosen = {name: value for name, value in given.items() if value is not None}
    if (model is None) == (pool is None):
        raise InputError("teach: give either --model M, or --pool FILE with a model for each of its teachers")
    if pool is not None and (chosen or groups or folds is not None):
        raise InputError(f"--pool {pool}: its file says how each teacher is made; leave out the other options")
    from kd_env import tasks
    from kd_env.benchmark.progress import Progress
    from kd_env.teachers import pool_files
    from kd_env.teachers.finetune import finetune
    from kd_env.teachers.finetune_config import FinetuneConfig
    from kd_env.teachers.out_of_fold import finetune_folds

    loaded = tasks.load(task, data_dir)
    say_notes(loaded, quiet)
    with Progress(quiet) as progress:
        if pool is not None:
            pool_files.teach(pool, loaded, out, progress.teaching)
        else:
            names = tuple(name.strip() for name in groups.split(",") if name.strip())
            config = FinetuneConfig(model or "", names, **chosen)  # type: ignore[arg-type]
            if folds is None:
                finetune(loaded, config, out, progress.teaching)
            else:
                finetune_folds(loaded, config, folds, out, progress.teaching)
    print(out)


def distill(
    task: Task,
    policy: Annotated[str, typer.Option("--policy", help="Who selects, as uniform, reinforce(window=4) or module:Class.")],
    out: Checkpoint,
    teachers: Teachers = None,
    student: Student = None,
    updates: Updates = None,
    seeds: Annotated[str, typer.Option("--seeds", help="As 0-4 or 0,3,7; the student of the best validation is kept.")] = "0",
    set_: Set = None,
    bank_: Bank = None,
    data_dir: DataDir = None,
    quiet: Quiet = False,
) -> None:
    """Distil a student and save it as a Transformers checkpoint with its tokenizer and a model card."""
    from kd_env import tasks
    from kd_env.benchmark.distill import distill as run
    from kd_env.benchmark.progress import Progress
    from kd_env.benchmark.trial import Trial

    settings = read_settings(set_, student=student, updates=updates)
    named, bank = tasks.with_data_dir(task, data_dir), None if bank_ is None else str(bank_)
    trials = [Trial(named, policy, seed, teachers, bank, "distill", settings, command()) for seed in read_seeds(seeds)]
    say_notes(tasks.load(named), quiet)
    with Progress(quiet) as progress:
        print(run(trials, out, progress))
