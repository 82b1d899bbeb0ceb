"""Progress of long work: a live bar on a terminal, plain lines in a pipe, nothing when quiet. Everything goes to stderr."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType

from rich import progress as bars
from rich.console import Console

from kd_env.benchmark.records import Record
from kd_env.benchmark.trial import Trial


class Progress:
    """Shows updates done, their rate, time left, and the latest validation."""

    def __init__(self, quiet: bool = False) -> None:
        """Open nothing until :meth:`start`."""
        self._console = Console(stderr=True, quiet=quiet, highlight=False)
        self._live = bars.Progress(
            bars.TextColumn("{task.description}"),
            bars.BarColumn(),
            bars.MofNCompleteColumn(),
            bars.TextColumn("{task.fields[unit]} {task.fields[rate]}"),
            bars.TimeElapsedColumn(),
            bars.TimeRemainingColumn(),
            bars.TextColumn("{task.fields[latest]}"),
            console=self._console,
            disable=quiet or not self._console.is_terminal,
        )
        self._bar: bars.TaskID | None = None
        self._asked: dict[str, bars.TaskID] = {}
        self._taught: dict[str, bars.TaskID] = {}
        self._trials, self._ended = 0, 0

    def __enter__(self) -> Progress:
        """Show the bar."""
        self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Leave the terminal as it was."""
        self._live.stop()

    def say(self, line: str) -> None:
        """One plain line."""
        self._live.console.print(line, markup=False, soft_wrap=True)

    def start(self, trials: int, updates: int, skipped: int) -> None:
        """Announce the work."""
        already = f", {skipped} finished already" if skipped else ""
        self.say(f"{trials} trial{'s' * (trials != 1)} to run{already}")
        self._trials = trials
        self._bar = self._live.add_task("trials", total=updates, unit="updates", rate="", latest="")

    def bank(self, what: str, done: int, total: int) -> None:
        """A bank is being built."""
        if what not in self._asked:
            self._asked[what] = self._live.add_task(f"bank: {what}", total=total, unit="examples", rate="", latest="")
        self._live.update(self._asked[what], completed=done, visible=done < total)
        if done == total:
            self.say(f"  bank: {what}, {total} examples")

    def teaching(self, name: str, done: int, total: int, said: str) -> None:
        """A teacher has had so many updates; ``said`` is what there is to say at the end of an epoch."""
        if name not in self._taught:
            self._taught[name] = self._live.add_task(name, total=total, unit="updates", rate="", latest="")
        bar = self._taught[name]
        self._live.update(bar, completed=done)
        speed = self._live.tasks[bar].speed
        self._live.update(bar, rate=f"{speed:.0f}/s" if speed else "")
        if said:
            self._live.update(bar, latest=said)
            self.say(f"{name}: {said}")
        elif not self._console.is_terminal and 10 * done // total > 10 * (done - 1) // total:
            self.say(f"{name}: {done} of {total} updates")

    def reporter(self, trial: Trial) -> Callable[[int, float | None], None]:
        """What a trial in this process calls."""
        return lambda updates, validation: self.advance(trial.policy, trial.seed, updates, validation)

    def advance(self, policy: str, seed: int, updates: int, validation: float | None) -> None:
        """Some updates are done."""
        if self._bar is None:
            return
        self._live.advance(self._bar, updates)
        speed = self._live.tasks[self._bar].speed
        shown = {"rate": f"{speed:.0f}/s" if speed else ""}
        if validation is not None:
            shown["latest"] = f"{policy} seed {seed}: validation {validation:.3f}"
        self._live.update(self._bar, **shown)  # type: ignore[arg-type]

    def finished(self, record: Record) -> None:
        """A trial has ended."""
        self._ended += 1
        score = "diverged" if record["diverged"] else f"validation {record['validation']:.3f}"
        self.say(
            f"[{self._ended}/{self._trials}] {record['task']} {record['policy']} seed {record['seed']}: {score}, {record['wall_s']:.1f} s"
        )
