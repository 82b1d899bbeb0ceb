"""The ``kd-env`` command. In: words. Out: exit 0 when done, 2 on bad input with one line on stderr, 130 on Ctrl-C.

Whatever is heavy is imported by the command that needs it, so that ``--help`` answers at once.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from kd_env.cli import look, models
from kd_env.cli.options import (
    Bank,
    DataDir,
    Out,
    Quiet,
    Set,
    Student,
    Task,
    Teachers,
    Updates,
    Workers,
    command,
    read_seeds,
    read_settings,
    say_notes,
)
from kd_env.errors import InputError

app = typer.Typer(
    name="kd-env",
    help="Distil a student from a pool of teachers while a policy selects, per instance, which teachers teach; compare policies honestly.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

UsageError = cast("type[typer.BadParameter]", typer.BadParameter.__mro__[2])
"""Click's base of all usage errors: its own, or that of the copy which newer versions of Typer carry."""


def _say_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"kd-env {version('kd-env')}")
        raise typer.Exit


@app.callback()
def kd_env(
    version: Annotated[bool, typer.Option("--version", help="Say which version this is.", is_eager=True, callback=_say_version)] = False,
) -> None:
    """Take what concerns no command."""


app.command("list")(look.list_)


@app.command()
def demo(out: Out = Path("results/demo"), workers: Workers = 0, quiet: Quiet = False) -> None:
    """Run the main job on the embedded default: nine policies, three seeds, handwritten digits; then the report."""
    from kd_env.benchmark.suites import SUITES

    _bench("demo", SUITES["demo"].seeds, out, workers, quiet)


@app.command()
def bench(
    suite: Annotated[str, typer.Argument(help="A name of kd-env list suites.")],
    out: Out,
    seeds: Annotated[str | None, typer.Option("--seeds", help="As 0-4 or 0,3,7. Default: the suite's.")] = None,
    workers: Workers = 0,
    quiet: Quiet = False,
) -> None:
    """Run a suite of trials, what is not finished yet; then the report."""
    from kd_env.benchmark.suites import SUITES
    from kd_env.spec import unknown

    if suite not in SUITES:
        raise unknown("suite", suite, SUITES)
    _bench(suite, SUITES[suite].seeds if seeds is None else read_seeds(seeds), out, workers, quiet)


app.command()(models.teach)


@app.command()
def bank(
    task: Task,
    out: Annotated[Path | None, typer.Option("--out", help="Folder of the bank. Default: a folder of the cache.")] = None,
    teachers: Teachers = None,
    layers: Annotated[bool, typer.Option("--layers", help="Also keep each layer's [CLS], for feature and relation knowledge.")] = False,
    attention: Annotated[bool, typer.Option("--attention", help="Also keep the last layer's attention, for attention knowledge.")] = False,
    half: Annotated[bool, typer.Option("--half", help="In half precision: half the size.")] = False,
    quiet: Quiet = False,
    data_dir: DataDir = None,
) -> None:
    """Cache what the teachers say about every train, reward and validation example."""
    from kd_env import tasks
    from kd_env.bank.bank import open_bank
    from kd_env.benchmark.progress import Progress
    from kd_env.teachers import load_pool

    loaded = tasks.load(task, data_dir)
    say_notes(loaded, quiet)
    keep = frozenset(part for part, wanted in (("layers", layers), ("attention", attention)) if wanted)
    with Progress(quiet) as progress:
        pool = load_pool(loaded.defaults.pool if teachers is None else teachers, loaded)
        opened = open_bank(loaded, pool, out, progress.bank, keep, half)
    print(f"bank {opened.directory}: {', '.join(opened.teachers)}; fingerprint {opened.fingerprint[:16]}")
    for name, score in opened.scores(loaded).items():
        print(f"  {name}: validation {loaded.metric} {score:.3f}")


@app.command()
def run(
    task: Task,
    policy: Annotated[
        list[str],
        typer.Option(
            "--policy", help="Repeat for several. A name with options, as reinforce(window=4), sb3:PPO(n_steps=16) or module:Class."
        ),
    ],
    out: Out,
    teachers: Teachers = None,
    student: Student = None,
    updates: Updates = None,
    seeds: Annotated[str, typer.Option("--seeds", help="As 0-4 or 0,3,7.")] = "0-4",
    set_: Set = None,
    bank_: Bank = None,
    population: Annotated[
        int, typer.Option("--population", min=1, help="Seeds taught at once as one population: much faster for small students.")
    ] = 1,
    no_test: Annotated[
        bool, typer.Option("--no-test", help="Leave test closed: for trying settings out, which validation decides.")
    ] = False,
    data_dir: DataDir = None,
    workers: Workers = 0,
    quiet: Quiet = False,
) -> None:
    """Distil a student with each policy and each seed; then the report."""
    from kd_env import tasks
    from kd_env.benchmark.trial import Trial

    settings = read_settings(set_, student=student, updates=updates)
    task = tasks.with_data_dir(task, data_dir)  # a record's task says all there is to know
    trials = [
        Trial(task, one, seed, teachers, None if bank_ is None else str(bank_), "run", settings, command(), not no_test)
        for seed in read_seeds(seeds)
        for one in dict.fromkeys(policy)
    ]
    say_notes(tasks.load(task), quiet)
    print(_run(trials, out, workers, quiet, population))


app.command()(models.distill)
app.command()(look.report)
app.command()(look.replay)
app.command()(look.doctor)


def main() -> None:
    """The console script; modules of one's own are importable from the working directory, after everything installed."""
    sys.path.append(os.getcwd())
    sys.exit(invoke(sys.argv[1:]))


def invoke(arguments: list[str]) -> int:
    """Run a command line and return its exit status; errors are one line on stderr."""
    try:
        status = app(arguments or ["--help"], standalone_mode=False)
    except InputError as error:
        return _fail(str(error))
    except UsageError as error:
        return _fail(f"{error.format_message()} (kd-env --help tells more)")
    except (KeyboardInterrupt, typer.Abort):
        status = 130
    except OSError as error:
        return _fail(f"{error.filename or 'file'}: {error.strerror or error}")
    if status == 130:  # Typer may have turned Ctrl-C into this
        print("stopped; what was finished is kept, the same command carries on", file=sys.stderr)
    return status if isinstance(status, int) else 0


def _fail(message: str) -> int:
    print(f"kd-env: {' '.join(message.split())}", file=sys.stderr)
    return 2


def _bench(name: str, seeds: Sequence[int], out: Path, workers: int, quiet: bool) -> None:
    from kd_env.benchmark.suites import SUITES

    for part in SUITES[name].parts:
        page = _run(part.trials(name, seeds, command()), out, workers, quiet, part.population)
    print(page)


def _run(trials: list[Any], out: Path, workers: int, quiet: bool, population: int = 1) -> Path:
    from kd_env.benchmark.progress import Progress
    from kd_env.benchmark.report import write_report
    from kd_env.benchmark.run import run

    with Progress(quiet) as progress:
        run(trials, out, progress, workers or _cores(), population)
    return write_report(out)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
