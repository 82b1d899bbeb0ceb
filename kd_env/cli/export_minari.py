"""``kd-env export-minari``: a dataset for offline reinforcement learning from the records of a folder."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from kd_env.cli.options import Quiet
from kd_env.printable import printable


def export_minari(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of results.")],
    out: Annotated[str, typer.Option("--out", metavar="NAME", help="Name of the dataset, with a version, e.g. kd-env/digits-v0.")],
    policy: Annotated[
        list[str] | None, typer.Option("--policy", metavar="POLICY", help="Export records of this policy only. Can be repeated.")
    ] = None,
    seed: Annotated[
        list[int] | None, typer.Option("--seed", metavar="SEED", help="Export records of this seed only. Can be repeated.")
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Make a Minari dataset of the decisions in a results folder.

    The trials of the records run again, and what the policies observe, do and
    get is kept. Each slot is an episode, with observations, actions, rewards,
    terminations and infos (example_ids, credit, validation ...). The rewards
    of the dataset are compared with those of the records.

    The dataset is in Minari's folder (MINARI_DATASETS_PATH, or ~/.minari);
    minari.load_dataset(NAME) reads it. Needs pip install 'kd-env[minari]'.
    """
    from kd_env.benchmark import records
    from kd_env.benchmark.check import select
    from kd_env.benchmark.minari_export import export

    chosen = select(directory, records.read(directory), policy or [], seed or [])
    folder = export(chosen, out, lambda line: None if quiet else print(printable(line), file=sys.stderr, flush=True))
    print(folder)
