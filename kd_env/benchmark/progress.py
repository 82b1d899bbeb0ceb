"""Show the progress of long work on stderr: a live bar on a terminal, plain lines in a pipe, nothing if quiet."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType

from rich import progress as bars
from rich.console import Console

from kd_env.benchmark.records import Record
from kd_env.benchmark.trial import Trial
from kd_env.interrupts import raise_if_interrupted
from kd_env.printable import printable

SECONDS_BETWEEN_LINES = 30.0
"""In a pipe, a line with the number of updates, their rate and the time left is printed this often."""


class Progress:
    """Shows the number of updates, their rate, the time left, and the latest validation score."""

    def __init__(self, quiet: bool = False) -> None:
        """Show nothing before :meth:`start`."""
        self._console = Console(stderr=True, quiet=quiet, highlight=False)
        self._live = bars.Progress(
            bars.TextColumn("{task.description}", markup=False),
            bars.BarColumn(),
            bars.MofNCompleteColumn(),
            bars.TextColumn("{task.fields[unit]} {task.fields[rate]}"),
            bars.TimeElapsedColumn(),
            bars.TimeRemainingColumn(),
            bars.TextColumn("{task.fields[latest]}", markup=False),
            console=self._console,
            disable=quiet or not self._console.is_terminal,
        )
        self._bar: bars.TaskID | None = None
        self._bank_bars: dict[str, bars.TaskID] = {}
        self._teacher_bars: dict[str, bars.TaskID] = {}
        self._trials, self._finished_trials = 0, 0
        self._last_line = time.monotonic()

    def __enter__(self) -> Progress:
        """Show the bar."""
        self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Remove the bar."""
        self._live.stop()

    def say(self, line: str) -> None:
        """Print one plain line."""
        self._last_line = time.monotonic()
        self._live.console.print(printable(line.replace("\n", " ")), markup=False, soft_wrap=True)

    def start(self, trials: int, updates: int, skipped: int) -> None:
        """Print the number of trials, and add their bar."""
        already = f", {skipped} finished already" if skipped else ""
        self.say(f"{trials} trial{'s' * (trials != 1)} to run{already}")
        self._trials = trials
        self._bar = self._live.add_task("trials", total=updates, unit="updates", rate="", latest="")

    def bank(self, name: str, done: int, total: int) -> None:
        """Show the number of finished examples of a bank's file."""
        raise_if_interrupted()
        if name not in self._bank_bars:
            self._bank_bars[name] = self._live.add_task(printable(f"bank: {name}"), total=total, unit="examples", rate="", latest="")
        self._live.update(self._bank_bars[name], completed=done, visible=done < total)
        if done == total:
            self.say(f"  bank: {name}, {total} examples")
            del self._bank_bars[name]  # another bank may have this teacher and split

    def teaching(self, name: str, done: int, total: int, message: str) -> None:
        """Show the number of updates of a teacher, and print ``message`` if it is not empty, as at the end of an epoch."""
        raise_if_interrupted()
        if name not in self._teacher_bars:
            self._teacher_bars[name] = self._live.add_task(printable(name), total=total, unit="updates", rate="", latest="")
        bar = self._teacher_bars[name]
        self._live.update(bar, completed=done, visible=done < total)
        self._show_rate(bar, message)
        if message:
            self.say(f"{name}: {message}")
        if done == total:
            del self._teacher_bars[name]  # another pool may have a teacher of this name

    def start_race(self, updates: int, done: int) -> None:
        """Add the bar of a race with ``updates`` updates, of which ``done`` were done before."""
        self._bar = self._live.add_task("race", total=updates, completed=done, unit="updates", rate="", latest="")

    def advance_race(self, updates: int, latest: str) -> None:
        """Add ``updates`` to the bar of a race, and show the text ``latest`` beside it."""
        assert self._bar is not None
        self._live.advance(self._bar, updates)
        self._show_rate(self._bar, latest)

    def end_rung(self, line: str) -> None:
        """Print ``line``, the results of a rung, with the rate and the time left."""
        assert self._bar is not None
        self.say(f"{line}{self._rate_and_time_left(self._bar)}")

    def reporter(self, trial: Trial) -> Callable[[int, float | None], None]:
        """Return the function that a trial in this process calls to report its progress."""
        return lambda updates, validation: self.advance(trial.policy, trial.seed, updates, validation)

    def advance(self, policy: str, seed: int, updates: int, validation: float | None) -> None:
        """Add ``updates`` to the bar, and show the validation score if it was measured."""
        raise_if_interrupted()
        if self._bar is None:
            return
        self._live.advance(self._bar, updates)
        self._show_rate(self._bar, "" if validation is None else f"{policy} seed {seed}: validation {validation:.3f}")

    def finished(self, record: Record) -> None:
        """Print the score of a finished trial."""
        self._finished_trials += 1
        score = "diverged" if record["diverged"] else f"validation {record['validation']:.3f}"
        number = f"[{self._finished_trials}/{self._trials}]"
        self.say(f"{number} {record['task']} {record['policy']} seed {record['seed']}: {score}, {record['wall_s']:.1f} s")

    def finished_elsewhere(self, trial: Trial) -> None:
        """Print that another process has finished a trial."""
        self._finished_trials += 1
        number = f"[{self._finished_trials}/{self._trials}]"
        self.say(f"{number} {trial.policy} seed {trial.seed}: finished by another process")

    def _show_rate(self, bar: bars.TaskID, latest: str) -> None:
        """Show the rate of a bar, and beside it ``latest`` unless it is empty; in a pipe, print them from time to time."""
        task = self._live.tasks[bar]
        latest = printable(latest) if latest else task.fields["latest"]
        self._live.update(bar, rate=f"{task.speed:.0f}/s" if task.speed else "", latest=latest)
        if not self._console.is_terminal and time.monotonic() - self._last_line >= SECONDS_BETWEEN_LINES:
            number = f"{task.completed:.0f} of {task.total:.0f} {task.fields['unit']}"
            self.say(f"{task.description}: {number}{self._rate_and_time_left(bar)}; {latest}".removesuffix("; "))

    def _rate_and_time_left(self, bar: bars.TaskID) -> str:
        task = self._live.tasks[bar]
        if not task.speed or not task.time_remaining:
            return ""
        return f"; {task.speed:.1f} updates/s, about {task.time_remaining / 60:.1f} min left"
