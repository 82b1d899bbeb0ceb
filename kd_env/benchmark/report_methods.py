"""Write the paragraph of a paper that says how the records were made. In: sections of a report. Out: sentences that name every setting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kd_env import tasks
from kd_env.benchmark.records import CONFIG_WITHOUT_SETTINGS, ENV_WITHOUT_SETTINGS, Record
from kd_env.benchmark.report_sections import Section, as_text, distinct
from kd_env.benchmark.summary import SEEDS_FOR_A_CLAIM, records_by_policy
from kd_env.envs.settings import settings as make_settings
from kd_env.errors import InputError

NAMED = frozenset({"student", "updates", "batch_size", "kd_weight", "temperature", "reward_labels", "label_seed"})
"""Settings that have a place in the sentences."""
Values = Mapping[str, Any]


def methods(sections: Sequence[Section]) -> list[str]:
    """Return the paragraphs: one for each setting, then one on policies, statistics and versions."""
    return [*(_setting(section) for section in sections), _common([record for section in sections for record in section.records])]


def seed_ranges(seeds: Sequence[int]) -> str:
    """Return seeds as ranges: `0-4, 7`."""
    parts: list[list[int]] = []
    for seed in sorted(set(seeds)):
        if parts and seed == parts[-1][1] + 1:
            parts[-1][1] = seed
        else:
            parts.append([seed, seed])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in parts)


def _setting(section: Section) -> str:
    setting, records = section.setting, section.records
    values = {record["policy"]: _values(record) for record in records}
    teachers = distinct(", ".join(record["teachers"]) for record in records)
    sentences = [
        f"On the task {setting.task}, the pool {setting.pool} ({'; '.join(teachers)}) teaches the student {setting.student} for "
        f"{setting.updates:,} updates with a batch size of {_same('batch_size', values)}.",
        f"The weight of the teachers in the loss (kd_weight) is {_same('kd_weight', values)}, and the temperature is "
        f"{_same('temperature', values)}.",
        f"Policies that use the reward split have {setting.reward_labels:,} reward labels.",
        f"{_seeds(records)}; the seed sets the student's initial parameters, the order of the data, the policy{_labels(records)}.",
        f"The score is the {section.metric}.",
    ]
    names = sorted({name for of_policy in values.values() for name in of_policy} - NAMED)
    listed = [f"{name} = {_same(name, values)}" for name in names]
    if listed:
        sentences.append(f"Other settings: {', '.join(listed)}.")
    if not all("batch_size" in of_policy for of_policy in values.values()):
        sentences.append("Settings that are not named are at the task's defaults.")
    return " ".join(sentences)


def _seeds(records: Sequence[Record]) -> str:
    """Return which seeds the policies have."""
    policies_of: dict[str, list[str]] = {}
    for policy, of_policy in records_by_policy(records).items():
        policies_of.setdefault(seed_ranges([record["seed"] for record in of_policy]), []).append(policy)
    if len(policies_of) == 1:
        return f"Each policy runs with the seeds {next(iter(policies_of))}"
    return "The policies run with the seeds " + ", ".join(f"{seeds} ({', '.join(names)})" for seeds, names in policies_of.items())


def _labels(records: Sequence[Record]) -> str:
    """Return what chooses the reward labels, as the end of a sentence."""
    seeds = distinct(str(record["config"].get("label_seed", "the seed")) for record in records)
    return " and the choice of the reward labels" if seeds == ["the seed"] else f"; label_seed {', '.join(seeds)} chooses the reward labels"


def _common(records: Sequence[Record]) -> str:
    policies = sorted({(record["policy"], record["access"]) for record in records})
    listed = ", ".join(f"{policy} ({access})" for policy, access in policies)
    versions = "; ".join(
        f"{name} {', '.join(distinct(str(record['versions'][name]) for record in records if name in record['versions']))}"
        for name in sorted({name for record in records for name in record["versions"]})
    )
    untested = sum(not record["config"].get("test", True) for record in records)
    opened = "The test split is opened once per trial, when the student is finished."
    if untested:
        opened = f"In {untested} of {len(records)} trials the test split was not evaluated. In the others it is opened once, at the end."
    if untested == len(records):
        opened = "The test split was not evaluated."
    return " ".join(
        [
            f"The policies, with the data that they read, are {listed}.",
            opened,
            "Scores are means over seeds with Student's t intervals at 95 %. Policies are compared by paired t tests over their common "
            "seeds, with Holm's adjustment over all pairs of policies of a setting that are not privileged; "
            f"nothing is claimed from fewer than {SEEDS_FOR_A_CLAIM} seeds.",
            f"Diverged trials: {sum(bool(record['diverged']) for record in records)} of {len(records)}.",
            f"Devices: {', '.join(distinct(str(record['device']) for record in records))}. Versions: {versions}.",
        ]
    )


def _values(record: Record) -> Values:
    """Return all settings of a record, with the task's defaults; only the recorded ones if the task cannot be loaded here."""
    env, config = record["env"] or {}, record["config"]
    values = {**config, **env}  # a policy or its tuned configuration may set what the user set too
    known = {name: value for name, value in values.items() if name not in (*ENV_WITHOUT_SETTINGS, *CONFIG_WITHOUT_SETTINGS)}
    try:
        return make_settings(tasks.load(env.get("task") or record["task"]), **known).flat()
    except InputError:
        return known


def _same(name: str, values: Mapping[str, Values]) -> str:
    """Return the value that all policies have, or the values with the policies that differ from the most frequent value."""
    of_value: dict[str, list[str]] = {}
    for policy, of_policy in values.items():
        value = (as_text(of_policy[name]) or "none") if name in of_policy else "the task's default"
        of_value.setdefault(value, []).append(policy)
    most, *others = sorted(of_value, key=lambda value: -len(of_value[value]))
    return most + "".join(f" ({value} for {', '.join(of_value[value])})" for value in others)
