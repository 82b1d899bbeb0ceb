"""``kd-env bank``: compute the outputs of teachers once and keep them."""

from __future__ import annotations

import sys
from contextlib import nullcontext
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
    num_cores,
    print_notes,
)
from kd_env.errors import InputError
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
    maps: Annotated[
        bool, typer.Option("--maps", help="Also keep the last feature map of images of train, for knowledge types that compare it.")
    ] = False,
    stages: Annotated[
        str, typer.Option("--stages", metavar="NAMES", help="Also keep the feature maps of these stages, e.g. 'stage1;stage2', or all.")
    ] = "",
    half: Annotated[
        bool,
        typer.Option("--half", help="Store float16 instead of float32, half the size. A bank that is there already keeps its precision."),
    ] = False,
    executor: Annotated[
        str,
        typer.Option(
            "--executor",
            metavar="NAME",
            help="What runs the teachers: local (this process), or ray (a Ray cluster, RAY_ADDRESS or this machine; needs kd-env[ray]).",
        ),
    ] = "local",
    workers: Annotated[
        int, typer.Option("--workers", min=0, metavar="N", help="Processors of a Ray that starts on this machine; 0 for all cores.")
    ] = 0,
    gpus_per_shard: Annotated[
        float,
        typer.Option(
            "--gpus-per-shard",
            min=0.0,
            metavar="G",
            help="With --executor ray: share of a GPU for each block of 4096 examples. With 0.25, four blocks share a GPU.",
        ),
    ] = 0.0,
    quiet: Quiet = False,
    data_dir: DataDir = None,
    text: TextColumn = None,
    pair: PairColumn = None,
    label: LabelColumn = None,
    group: GroupColumn = None,
    max_length: MaxLength = None,
) -> None:
    """Compute the outputs of the teachers and keep them on disk.

    A bank holds the outputs for every train, reward and validation example. Other commands make the bank they need by themselves. The same
    command resumes a bank that was stopped.
    """
    from kd_env import tasks
    from kd_env.bank.assumptions import cut_lines, teacher_lines
    from kd_env.bank.bank import open_bank
    from kd_env.bank.shards import one_after_another
    from kd_env.benchmark.progress import Progress
    from kd_env.benchmark.ray_cluster import check_gpus, ray_cluster
    from kd_env.benchmark.ray_shards import shards_with_ray
    from kd_env.models.stages import request
    from kd_env.spec import one_of
    from kd_env.teachers import load_pool

    one_of("bank", "local", "ray", executor=executor)
    if gpus_per_shard and executor != "ray":
        raise InputError(f"--gpus-per-shard {gpus_per_shard}: only Ray reserves GPUs; add --executor ray, or leave it out")
    if workers and executor != "ray":
        raise InputError(f"--workers {workers}: this process runs the teachers one after the other; add --executor ray, or leave it out")
    loaded, named_pool = tasks.load(named_task(task, data_dir, text, pair, label, group, max_length)), join_teachers(teachers)
    print_notes(loaded, quiet)
    keep = frozenset(output for output, asked in (("layers", layers), ("attention", attention), ("maps", maps)) if asked)
    keep |= {request(stage.strip()) for stage in stages.split(";") if stage.strip()}
    with Progress(quiet) as progress, ray_cluster(workers or num_cores()) if executor == "ray" else nullcontext() as ray:
        if ray is not None:
            check_gpus(ray, "--gpus-per-shard", gpus_per_shard, progress.say)
        pool = load_pool(loaded.defaults.pool if named_pool is None else named_pool, loaded, progress.teaching)
        map_shards = one_after_another if ray is None else shards_with_ray(ray, gpus_per_shard)
        opened = open_bank(loaded, pool, out, progress.bank, keep, half, map_shards)
    print(one_line(f"bank {opened.directory}: {', '.join(opened.teachers)}; fingerprint {opened.fingerprint[:16]}"))
    print(printable("\n".join(teacher_lines(loaded, pool, opened))))
    if half and not opened.half:
        print(one_line(f"{opened.directory} was there already, in float32, and is kept; delete it to store float16"), file=sys.stderr)
    for line in () if quiet else cut_lines(loaded, pool, loaded.defaults.student):
        print(one_line(line), file=sys.stderr)
