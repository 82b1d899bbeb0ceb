"""``kd-env replay``: check records, by their recorded decisions or by running their trials again."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kd_env.cli.options import Quiet
from kd_env.errors import InputError
from kd_env.interrupts import raise_if_interrupted
from kd_env.printable import printable

if TYPE_CHECKING:
    from kd_env.benchmark.check import Check


def replay(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of results.")],
    trial: Annotated[
        str | None,
        typer.Argument(metavar="TRIAL", help="Id of one trial, or the beginning of its id. Default: all records of the folder."),
    ] = None,
    policy: Annotated[
        list[str] | None, typer.Option("--policy", metavar="POLICY", help="Check records of this policy only. Can be repeated.")
    ] = None,
    seed: Annotated[
        list[int] | None, typer.Option("--seed", metavar="SEED", help="Check records of this seed only. Can be repeated.")
    ] = None,
    tolerance: Annotated[
        float,
        typer.Option(
            metavar="T",
            min=0.0,
            help="Largest accepted difference of a score. Above 0, all trials are run again; scores may differ by T, "
            "settings must be equal, and other numbers are not compared.",
        ),
    ] = 0.0,
    quiet: Quiet = False,
) -> None:
    """Check records: make their numbers again and compare.

    If DIR/traces holds the trace of a trial, its student is taught again with
    the recorded decisions. Its scores, its curve, and the settings, policy and
    access that the record names are compared. The policy does not run, except
    where its decisions carry a gradient (amtml, camkd, ...): there it decides
    again, and its decisions are compared too. If there is no trace, the trial
    is run again from its seed, together with the trials that were taught in
    the same population, and all numbers of the record are compared.

    On another kind of processor, or with other versions of the packages, the
    last digits can differ, and a student can end a point higher or lower. With
    --tolerance 0.02, scores on validation, test and the reward split that
    differ by up to two points count as equal.

    The exit status is 0 if all records are equal, and 1 if not. A record that
    cannot be read is named on stderr. It is not equal; with TRIAL, --policy or
    --seed it does not count, since it may be another one.
    """
    from kd_env.benchmark import records
    from kd_env.benchmark.check import checks, select

    everything, left_out = records.read_usable(directory)
    _say([f"kd-env: {reason}" for reason in left_out], quiet=False)
    if trial is None:
        chosen = select(directory, everything, policy or [], seed or [])
        unread = 0 if policy or seed else len(left_out)  # whose policy and seed may be what is wrong
        planned = checks(directory, everything, chosen, tolerance)
        raise typer.Exit(0 if _check_all(planned, len(chosen), unread, _equal(tolerance), quiet) else 1)
    if policy or seed:
        raise InputError(f"trial {trial!r} is one record; leave out --policy and --seed, or leave out the trial")
    name = _full_id([record["trial"] for record in everything], trial, directory)
    (check,) = checks(directory, everything, [record for record in everything if record["trial"] == name], tolerance)
    if not check.has_trace:
        _say(_announcements(check), quiet)
    differences = _checked(check)[name]
    print("\n".join(differences) or f"{name}: {_equal(tolerance)}")
    raise typer.Exit(1 if differences else 0)


def _equal(tolerance: float) -> str:
    """Return what is said of records without differences."""
    return f"equal within {tolerance:g}" if tolerance else "equal"


def _check_all(planned: list[Check], total: int, left_out: int, when_equal: str, quiet: bool) -> bool:
    """Print a line for each record and a summary, and return whether all are equal; the ``left_out`` further records are not."""
    started = equal = 0
    for check in planned:
        for announcement in _announcements(check):
            started += 1
            _say([f"[{started}/{total}] {announcement}"], quiet)
        for name, differences in _differences(check).items():
            print(f"{name}: {'; '.join(differences) or when_equal}", flush=True)
            equal += not differences
        raise_if_interrupted()
    print(f"{equal} of {total + left_out} records are {when_equal}")
    return equal == total + left_out


def _differences(check: Check) -> dict[str, list[str]]:
    """Return the differences of each record; one that cannot be checked differs."""
    try:
        return _checked(check)
    except InputError as error:
        return {record["trial"]: [f"cannot be checked: {error}"] for record in check.records}


def _checked(check: Check) -> dict[str, list[str]]:
    """Return the differences of each record.

    Raises:
        InputError: a record cannot be checked.
    """
    from gymnasium.error import Error

    try:
        return check.differences()
    except InputError:
        raise
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, RuntimeError, Error) as error:  # of a record that was edited
        raise InputError(f"{check.records[0]['trial']}: {type(error).__name__}: {error}") from error


def _announcements(check: Check) -> list[str]:
    """Return what is done to check each record."""
    others = len(check.unit) - len(check.records)
    together = f", together with {others} more of its population" if others > 0 else ""
    reason = "" if check.tolerance else "no trace, "
    action = "teaching with the recorded decisions" if check.has_trace else f"{reason}running the trial again{together}"
    return [f"{record['trial']}: {action}" for record in check.records]


def _say(lines: Iterable[str], quiet: bool) -> None:
    for line in () if quiet else lines:
        print(printable(line), file=sys.stderr, flush=True)


def _full_id(ids: list[Any], beginning: str, directory: Path) -> str:
    """Return the id that is ``beginning``, or else the only one that begins so.

    Raises:
        InputError: there is none, or there are several.
    """
    from kd_env.spec import unknown

    matches = [beginning] if beginning in ids else [name for name in ids if name.startswith(beginning)]
    if not matches:
        raise unknown(f"trial in {directory}", beginning, ids)
    if len(matches) > 1:
        raise InputError(f"trial {beginning!r} could be {matches[0]} or {matches[1]}, for example; give more of the id")
    return str(matches[0])
