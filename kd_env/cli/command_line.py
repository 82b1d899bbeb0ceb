"""Run a ``kd-env`` command line.

Its exit status is 0 when done, 1 if a check fails, 2 on bad input with one line on stderr, 130 on Ctrl-C, 143 on SIGTERM. Heavy libraries
are imported by the commands that need them, so that ``--help`` answers at once.
"""

from __future__ import annotations

import functools
import os
import sys
import warnings
from collections.abc import Callable
from typing import Annotated, Any, cast

import typer

from kd_env.benchmark.shared_student import is_first, num_processes
from kd_env.cli.bank import bank
from kd_env.cli.bench import bench
from kd_env.cli.demo import demo
from kd_env.cli.distill import distill
from kd_env.cli.doctor import doctor
from kd_env.cli.export_minari import export_minari
from kd_env.cli.list import list_
from kd_env.cli.options import examples
from kd_env.cli.replay import replay
from kd_env.cli.report import report
from kd_env.cli.run import run
from kd_env.cli.teach import teach
from kd_env.errors import InputError, Notice
from kd_env.interrupts import Terminated, remember_interrupts
from kd_env.printable import one_line, require_text

app = typer.Typer(
    name="kd-env",
    help="Knowledge distillation from several teachers, where a policy selects which teachers teach each example.",
    epilog=examples("kd-env demo", "kd-env list policies", "kd-env run --help"),
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

SHARED = frozenset({"bench", "demo", "run"})
"""Commands that several processes can run together."""

UsageError = cast("type[typer.BadParameter]", typer.BadParameter.__mro__[2])
"""Click's base class of all usage errors: Click's own, or that of the copy which newer versions of Typer contain."""


def _print_version(asked: bool) -> None:
    if asked:
        from kd_env import __version__  # found on use, since that is slow

        print(f"kd-env {__version__}")
        raise typer.Exit


@app.callback()
def kd_env(
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.", is_eager=True, callback=_print_version)] = False,
) -> None:
    """Take the options that belong to no command."""


app.command("list", epilog=examples("kd-env list", "kd-env list policies", "kd-env list tasks --json"))(list_)
app.command(epilog=examples("kd-env demo", "kd-env demo --out results/mine --workers 1"))(demo)
app.command(epilog=examples("kd-env bench demo --out results/suite --seeds 0", "kd-env bench systems --out results/systems"))(bench)
app.command(
    epilog=examples(
        "kd-env teach --task domains --model tiny-bert --epochs 1 --out teachers/bert",
        "kd-env teach --task digits --model 'tiny-vit(width=16)' --groups upright,inverted --out teachers/vit",
    )
)(teach)
app.command(
    epilog=examples("kd-env bank --task digits", "kd-env bank --task digits --teachers digits/mixed/good,digits/experts --out banks/five")
)(bank)
app.command(
    epilog=examples(
        "kd-env run --task digits --policy uniform --policy router --seeds 0-2 --out results/first",
        "kd-env run --task digits --policy 'reinforce(window=4)' --set kd_weight=0.5 --updates 300 --out results/second",
        "kd-env run --task domains --student tiny-bert --policy uniform --policy router --updates 200 --seeds 0-1 --out results/texts",
    )
)(run)
app.command(
    epilog=examples(
        "kd-env distill --task domains --student tiny-bert --budget 2min --out students/best",
        "kd-env distill --task digits --policy router --student tiny-vit --seeds 0-2 --updates 300 --out students/vit",
        "kd-env distill --from results/texts --trim-vocabulary --out students/kept",
    )
)(distill)
app.command(epilog=examples("kd-env report results/demo"))(report)
app.command(
    epilog=examples(
        "kd-env replay results/demo",
        "kd-env replay results/demo digits-uniform-s0",
        "kd-env replay results/demo --policy uniform --policy oracle --seed 0",
        "kd-env replay results/demo --tolerance 0.02",
    )
)(replay)
app.command(
    "export-minari",
    epilog=examples(
        "kd-env export-minari results/demo --policy uniform --out kd-env/uniform-v0",
        "kd-env export-minari results/first --policy router --seed 0 --out kd-env/router-v0",
    ),
)(export_minari)
app.command(epilog=examples("kd-env doctor", "kd-env doctor --task digits"))(doctor)


def main() -> None:
    """Run the console script. Modules in the working directory can be imported, after everything that is installed."""
    sys.path.append(os.getcwd())
    warnings.showwarning = functools.partial(_show_warning, warnings.showwarning)
    if num_processes() > 1 and not {*sys.argv[1:2]} & SHARED:
        sys.exit(_fail(f"{num_processes()} processes share one student: only {', '.join(sorted(SHARED))} can do that; run it in one"))
    if not is_first():
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 (open until the process ends)
    sys.exit(invoke(sys.argv[1:]))


def invoke(arguments: list[str]) -> int:
    """Run a command line, given without the name of the program, and return its exit status. Errors are one line on stderr."""
    try:
        for argument in arguments:
            require_text(argument)
        with remember_interrupts():
            status = app(arguments or ["--help"], prog_name="kd-env", standalone_mode=False)
    except InputError as error:
        return _fail(str(error))
    except UsageError as error:
        command = error.ctx.command_path if error.ctx is not None else "kd-env"
        return _fail(f"{error.format_message()} (try {command} --help)")
    except Terminated:
        status = 143
    except (KeyboardInterrupt, typer.Abort):
        status = 130
    except OSError as error:
        return _fail(f"{error.filename or 'file'}: {error.strerror or error}")
    if status in (130, 143):  # Typer may have turned Ctrl-C into this status
        print("stopped; what is finished is kept, and the same command continues", file=sys.stderr)
    return status if isinstance(status, int) else 0


def _show_warning(show: Callable[..., None], message: Warning | str, category: type[Warning], *place: Any) -> None:
    """Print a notice as one line, and show other warnings as Python does."""
    if issubclass(category, Notice):
        print(f"kd-env: {one_line(str(message))}", file=sys.stderr)
    else:
        show(message, category, *place)


def _fail(message: str) -> int:
    print(f"kd-env: {one_line(message)}", file=sys.stderr)
    return 2
