"""Run the validation trials of one policy: an Optuna study, kept in an SQLite file, with the sampler that proposes the next trial.

Only finished trials are written, each in one transaction. The sampler starts again at each proposal, from the finished trials and a seed of
their number. So a stopped search proposes again what it proposed before it was stopped.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kd_env.benchmark.tuning.space import Space, Value, rounded
from kd_env.errors import InputError
from kd_env.policies.search_space import Choice, Range

FILE = "study.db"
RANDOM_TRIALS = 5
"""Trials before the sampler learns from scores: the untuned policy, and random ones."""
WORST = -1e9
"""Score of a configuration whose student diverged."""


class Study:
    """The validation trials of one policy."""

    def __init__(self, directory: Path, name: str, space: Space) -> None:
        """Open the study ``name`` in the file of a folder, or begin it.

        Raises:
            InputError: Optuna is not installed, or the file is damaged.
        """
        optuna = _optuna()
        self._space = space
        self._distributions = {key: _distribution(entry) for key, entry in space.entries.items()}
        path = directory / FILE
        try:
            self._study = optuna.create_study(
                storage=f"sqlite:///{path.absolute()}", study_name=name, direction="maximize", load_if_exists=True
            )
            _ = self.finished
        except Exception as error:  # SQLAlchemy and Optuna raise their own kinds
            raise InputError(f"{path}: not a file of studies ({str(error).splitlines()[0]}); move it away, or name another --out") from None

    @property
    def finished(self) -> int:
        """Number of finished trials."""
        return len(self._study.trials)

    def propose(self) -> dict[str, Value]:
        """Return the values to try next: at first those of the untuned policy."""
        if not self.finished:
            return dict(self._space.start)
        optuna = _optuna()
        sampler = optuna.samplers.TPESampler(seed=self.finished, n_startup_trials=RANDOM_TRIALS)
        in_memory = optuna.create_study(direction="maximize", sampler=sampler)
        in_memory.add_trials(self._study.trials)
        return {name: _within(self._space.entries[name], value) for name, value in in_memory.ask(self._distributions).params.items()}

    def add(self, values: Mapping[str, Value], score: float) -> None:
        """Write a finished trial and its score, :data:`WORST` if a student diverged."""
        self._study.add_trial(_optuna().trial.create_trial(params=dict(values), distributions=self._distributions, value=score))

    def best(self, trials: int) -> dict[str, Value]:
        """Return the values of the best of the first ``trials`` trials; of equal ones the earliest, so the untuned first."""
        return dict(max(self._study.trials[:trials], key=lambda trial: (trial.value, -trial.number)).params)


def _within(entry: Range | Choice, value: Value) -> Value:
    """Return a value of a choice as it is, and one of a range with few digits, unless rounding takes it out of the range."""
    if isinstance(entry, Choice):
        return value
    short = rounded(value)
    return short if entry.low <= float(short) <= entry.high else value


def _distribution(entry: Range | Choice) -> Any:
    distributions = _optuna().distributions
    if isinstance(entry, Choice):
        return distributions.CategoricalDistribution(entry.values)
    if entry.whole:
        return distributions.IntDistribution(int(entry.low), int(entry.high), log=entry.log)
    return distributions.FloatDistribution(entry.low, entry.high, log=entry.log)


def _optuna() -> Any:
    try:
        import optuna
    except ImportError:
        raise InputError("--tune needs Optuna: pip install 'kd-env[tune]'") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna
