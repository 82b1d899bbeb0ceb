"""Tune the policies of a suite, and find the configurations that ``kd-env run --tuned`` uses."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kd_env.cli.options import command_line
from kd_env.cli.run_options import RunOptions


def tune_part(part: Any, earlier: Sequence[Any], trials: int, out: Path, options: RunOptions) -> Mapping[str, Any]:
    """Tune the policies of a part, write a file in ``DIR/tuned``, and return the configurations by policy.

    Args:
        part: a :class:`~kd_env.benchmark.suite_parts.Part`.
        earlier: the parts before it in its suite.
        trials: number of validation trials of each policy.
        out: the results folder.
        options: how the trials are run.
    """
    from kd_env import tasks
    from kd_env.benchmark.progress import Progress
    from kd_env.benchmark.tuning import files
    from kd_env.benchmark.tuning.tune import tune

    def run_round(trials: Sequence[Any], directory: Path, population: int, line: str) -> None:
        with Progress(options.quiet) as progress:
            progress.say(line)
            options.run(trials, directory, progress, population)

    tuned = tune(part, trials, out, command_line(), run_round)
    name = files.file_name(tuned.task, tuned.teachers)
    number = 1 + sum(files.file_name(each.task, each.teachers or tasks.load(each.task).defaults.pool) == name for each in earlier)
    files.write(out / "tuned" / files.file_name(tuned.task, tuned.teachers, number), tuned)
    return tuned.policies


def configurations(
    task: str, teachers: str | None, policies: Sequence[str], settings: Mapping[str, Any], place: Path | None, quiet: bool
) -> dict[str, Any]:
    """Return the configuration of each policy, of :class:`~kd_env.benchmark.tuning.configuration.Configuration`.

    Args:
        task: name of the task.
        teachers: pool; ``None`` for the task's.
        policies: names of the policies.
        settings: settings that the user gave.
        place: a file or folder of tuned configurations; ``None`` for those that ship with kd-env.
        quiet: whether to print nothing.

    Raises:
        InputError: a policy is not tuned for this task and pool, or a tuned setting is given too.
    """
    from kd_env import tasks
    from kd_env.benchmark.tuning import files

    defaults = tasks.load(task).defaults
    tuned = files.find(task, teachers or defaults.pool, place)
    chosen = {policy: files.configuration(tuned, policy, settings) for policy in policies}
    actual = (settings.get("student", defaults.student), settings.get("updates", defaults.updates))
    if actual != (tuned.student, tuned.updates) and not quiet:
        tuned_for = f"student {tuned.student} and {tuned.updates} updates"
        print(f"these policies are tuned for {tuned_for}, not for student {actual[0]} and {actual[1]} updates", file=sys.stderr)
    return chosen
