"""``kd-env replay``: take a trial's recorded actions again and compare."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kd_env.errors import InputError


def replay(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of results.")],
    trial: Annotated[
        str, typer.Argument(metavar="TRIAL", help="Id of the trial, the name of its file in DIR/traces, or the beginning of one id.")
    ],
) -> None:
    """Replay the recorded actions of a trial and compare.

    The exit status is 0 if the results are equal, and 1 if they are not.
    """
    from kd_env.benchmark.replay import replay as find_differences

    name = _full_id(directory, trial)
    differences = find_differences(directory, name)
    print("\n".join(differences) or f"{name}: equal")
    raise typer.Exit(1 if differences else 0)


def _full_id(directory: Path, beginning: str) -> str:
    """Return the only id that begins so; without one, ``beginning`` as it is.

    Raises:
        InputError: there are several.
    """
    from kd_env.benchmark import records

    ids = [record["trial"] for record in records.read(directory)]
    matches = [name for name in dict.fromkeys(ids) if name.startswith(beginning)]
    if beginning in ids or not matches:
        return beginning
    if len(matches) > 1:
        raise InputError(f"trial {beginning!r} could be {matches[0]} or {matches[1]}, for example; give more of the id")
    return str(matches[0])
