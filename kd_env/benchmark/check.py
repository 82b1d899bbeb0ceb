"""Check the records of a results folder. In: the folder, and which records. Out: checks, each of which returns what differs.

The recorded decisions of a trial are taken again where its trace is kept. Without a trace the trial is run again, and with it the trials
that were taught in the same population.
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
        records: the records to check.
        unit: all records that were made together with them, which are run again; empty where the trace of the only record is replayed.
        directory: the folder of the records.
    """

    records: list[Record]
    unit: list[Record]
    directory: Path

    @property
    def has_trace(self) -> bool:
        """Whether a trace is replayed."""
        return not self.unit

    def differences(self) -> dict[str, list[str]]:
        """Return the differences of each record by the trial's id, a line each; a record without any is equal.

        Raises:
            InputError: the trace cannot be read, or a task, pool or policy is no longer there or no longer the same.
        """
        if self.has_trace:
            (record,) = self.records
            return {record["trial"]: replay_record(self.directory, record)}
        by_trial = rerun(self.unit)
        return {record["trial"]: by_trial[record["trial"]] for record in self.records}


def checks(directory: Path, records: Sequence[Record], chosen: Sequence[Record]) -> list[Check]:
    """Return how the ``chosen`` of all ``records`` of a folder are checked, in the order of the records."""
    wanted = {record["trial"] for record in chosen}
    planned = []
    for unit in units(records):
        traced = {record["trial"] for record in unit if trace_file(directory, record["trial"]).exists()}
        without_trace = [record for record in unit if record["trial"] in wanted - traced]
        planned += [Check([record], [], directory) for record in unit if record["trial"] in wanted & traced]
        planned += [Check(without_trace, unit, directory)] if without_trace else []
    return planned


def select(directory: Path, records: Sequence[Record], policies: Sequence[str], seeds: Sequence[int]) -> list[Record]:
    """Return the records of some policies and seeds; an empty list stands for all.

    Raises:
        InputError: there is no record of a policy, of a seed, or of the combination.
    """
    names = [str(spec.parse(text)) for text in policies]
    known_policies, known_seeds = {record["policy"] for record in records}, {str(record["seed"]) for record in records}
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
        raise InputError(f"{directory}: no record is of these policies and these seeds; leave out --policy or --seed")
    return chosen
