"""Check the records of a results folder. In: the folder, and the records to check. Out: checks, which return the differences.

If a trial has a trace, its recorded decisions are applied again. Without a trace, or with a tolerance, the trial runs again, together with
the other trials of its population.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kd_env import spec
from kd_env.benchmark.records import Record
from kd_env.benchmark.replay import replay_record, trace_file
from kd_env.benchmark.rerun import rerun, units
from kd_env.errors import InputError


@dataclass(frozen=True)
class Check:
    """Records that are checked together.

    Attributes:
        records: records to check.
        unit: all records that ran together with them, which run again; empty if the trace of the only record is replayed.
        directory: folder of the records.
        tolerance: largest accepted difference of a score; 0 compares all numbers.
    """

    records: list[Record]
    unit: list[Record]
    directory: Path
    tolerance: float = 0.0

    @property
    def has_trace(self) -> bool:
        """Whether a trace is replayed."""
        return not self.unit

    def differences(self) -> dict[str, list[str]]:
        """Return the differences of each record by the trial's id, one line per difference.

        Raises:
            InputError: the trace cannot be read, or a task, pool or policy no longer exists or has changed.
        """
        if self.has_trace:
            (record,) = self.records
            return {record["trial"]: replay_record(self.directory, record)}
        by_trial = rerun(self.unit, self.tolerance)
        return {record["trial"]: by_trial[record["trial"]] for record in self.records}


def checks(directory: Path, records: Sequence[Record], chosen: Sequence[Record], tolerance: float = 0.0) -> list[Check]:
    """Return the checks of the records ``chosen`` among all ``records`` of a folder, in the order of the records."""
    wanted = {record["trial"] for record in chosen}
    planned = []
    for unit in units(records):
        traced = {record["trial"] for record in unit if not tolerance and trace_file(directory, record["trial"]).exists()}
        without_trace = [record for record in unit if record["trial"] in wanted - traced]
        planned += [Check([record], [], directory) for record in unit if record["trial"] in wanted & traced]
        planned += [Check(without_trace, unit, directory, tolerance)] if without_trace else []
    return planned


def select(directory: Path, records: Sequence[Record], policies: Sequence[str], seeds: Sequence[int]) -> list[Record]:
    """Return the records with these policies and seeds. An empty list means all.

    Raises:
        InputError: no record has one of the policies, one of the seeds, or their combination.
    """
    known_policies, known_seeds = {record["policy"] for record in records}, {str(record["seed"]) for record in records}
    names = [text if text in known_policies else str(spec.parse(text)) for text in policies]  # "NAME, tuned 12" is not a policy's text
    for name in names:
        if name not in known_policies:
            raise spec.unknown(f"policy in {directory}", name, known_policies)
    for seed in seeds:
        if str(seed) not in known_seeds:
            raise spec.unknown(f"seed in {directory}", str(seed), known_seeds)
    chosen = [
        record for record in records if record["policy"] in (names or known_policies) and record["seed"] in (seeds or [record["seed"]])
    ]
    if not chosen:
        raise InputError(f"{directory}: no record has these policies and these seeds; leave out --policy or --seed")
    return chosen
