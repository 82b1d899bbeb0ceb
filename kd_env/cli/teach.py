"""``kd-env teach``: fine-tune teachers into checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from kd_env.cli.options import (
    Checkpoint,
    CheckpointMinutes,
    DataDir,
    GroupColumn,
    LabelColumn,
    PairColumn,
    Quiet,
    Task,
    TextColumn,
    named_task,
    print_notes,
)
from kd_env.errors import InputError


def teach(
    task: Task,
    out: Checkpoint,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            metavar="MODEL",
            help="Checkpoint (an encoder of texts, ViT, ResNet, ConvNeXt, MobileNet ...), tiny-bert, tiny-vit or a network such as "
            "resnet20, with options. Its head is new.",
        ),
    ] = None,
    pool: Annotated[
        Path | None,
        typer.Option("--pool", metavar="FILE", help="Pool file, .json or .toml, that says how each of several teachers is made."),
    ] = None,
    groups: Annotated[
        list[str] | None,
        typer.Option(
            "--groups",
            metavar="GROUPS",
            help="Groups of the task to learn from, separated by commas; the option can be repeated. Default: all.",
        ),
    ] = None,
    fraction: Annotated[
        float | None, typer.Option("--fraction", metavar="F", help="Part of the examples to learn from, drawn by the seed. Default: 1.")
    ] = None,
    folds: Annotated[
        int | None,
        typer.Option("--folds", metavar="N", help="Train N models, each without one fold of train, that answer as one teacher."),
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option("--epochs", metavar="N", help="Largest number of epochs. Default: 3 for a checkpoint, 20 for a built-in model."),
    ] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", metavar="N", help="Seed of the new weights and of the order of the data. Default: 0.")
    ] = None,
    label_noise: Annotated[
        float | None, typer.Option("--label-noise", metavar="F", help="Part of the labels that is replaced by random ones. Default: 0.")
    ] = None,
    batch_size: Annotated[int | None, typer.Option("--batch-size", metavar="N", help="Examples of one update. Default: 32.")] = None,
    lr: Annotated[
        float | None,
        typer.Option(
            "--lr",
            metavar="LR",
            help="Peak learning rate. Default: 5e-5 for a checkpoint, 1e-3 for a built-in model, 0.05 for a resnet20 and the like.",
        ),
    ] = None,
    max_length: Annotated[
        int | None, typer.Option("--max-length", metavar="N", help="Tokens of a text; the rest is cut off. Default: 128, or the task's.")
    ] = None,
    checkpoint_minutes: CheckpointMinutes = 5.0,
    quiet: Quiet = False,
    data_dir: DataDir = None,
    text: TextColumn = None,
    pair: PairColumn = None,
    label: LabelColumn = None,
    group: GroupColumn = None,
) -> None:
    """Train a teacher, or a pool of teachers, on a task.

    Each teacher becomes a checkpoint. Training uses the train split alone, and stops early by the loss on a
    slice of it. Convolutional networks train for all epochs and keep the best one.
    """
    values: dict[str, Any] = {
        "epochs": epochs,
        "seed": seed,
        "label_noise": label_noise,
        "batch_size": batch_size,
        "lr": lr,
        "max_length": max_length,
        "fraction": fraction,
    }
    changed = {name: value for name, value in values.items() if value is not None}
    if (model is None) == (pool is None):
        raise InputError("teach: give either --model M, or --pool FILE with a model for each of its teachers")
    if pool is not None and (changed or groups or folds is not None):
        raise InputError(f"--pool {pool}: its file says how each teacher is made; leave out the other options")
    from kd_env import tasks
    from kd_env.benchmark.progress import Progress
    from kd_env.teachers import pool_files
    from kd_env.teachers.finetune import finetune
    from kd_env.teachers.finetune_config import FinetuneConfig
    from kd_env.teachers.names import split_names
    from kd_env.teachers.out_of_fold import finetune_folds

    loaded = tasks.load(named_task(task, data_dir, text, pair, label, group))
    print_notes(loaded, quiet)
    with Progress(quiet) as progress:
        if pool is not None:
            pool_files.teach(pool, loaded, out, progress.teaching, checkpoint_minutes)
        else:
            names = [name for item in groups or [] for name in split_names(item, loaded.group_names)]
            config = FinetuneConfig(model or "", tuple(dict.fromkeys(names)), **changed)
            if folds is None:
                finetune(loaded, config, out, progress.teaching, checkpoint_minutes)
            else:
                finetune_folds(loaded, config, folds, out, progress.teaching, checkpoint_minutes)
    print(out)
