"""Check what a record says about itself. In: a record, and the selection that its ``env`` makes. Out: the fields that are not so.

Settings, task, pool and policy are looked up; nothing is taught.
"""

from __future__ import annotations

from typing import Any

from kd_env import spec, tasks
from kd_env.benchmark.records import Record, id_prefix
from kd_env.benchmark.tuning.configuration import Configuration, untuned_name
from kd_env.envs.selection import Selection
from kd_env.errors import InputError
from kd_env.policies import registry
from kd_env.policies.access import effective_access


def identity_differences(record: Record, selection: Selection) -> list[str]:
    """Return the fields of a record that its environment, its policy or its id contradict, one line each.

    A policy that cannot be looked up, such as a plugin whose module is not here, is a difference: its access cannot be compared.
    """
    task, settings = tasks.load(record["env"]["task"]), selection.settings
    actual: dict[str, Any] = {
        "task": task.name,
        "student": settings.distillation.student,
        "teachers": list(selection.pool.names),
        "pool": selection.pool.name,
        "updates": settings.distillation.updates,
        "metric": task.metric,
        "reward_labels": selection.distillation.reward_split.num_labels,
    }
    if "test_split" in record:
        actual["test_split"] = task.test_fingerprint if record["config"].get("test", True) else ""
    lines = [f"{name}: recorded {record[name]!r}, its env gives {value!r}" for name, value in actual.items() if record[name] != value]
    prefix = id_prefix(record["env"]["task"], record["policy"], record["seed"])
    if not record["trial"].startswith(prefix):
        lines.append(f"trial: recorded {record['trial']!r}, its task, policy and seed give {prefix}...")
    return lines + _policy_differences(record, selection)


def _policy_differences(record: Record, selection: Selection) -> list[str]:
    """Return what the registry contradicts: the name of the policy and its access."""
    config, source = record["config"], record["config"].get("policy_from")
    tuned = Configuration(**config["tuned"]) if "tuned" in config else None
    text = source["policy"] if source else untuned_name(record["policy"])
    try:
        policy = registry.find(text if tuned is None else tuned.of_policy(text))
        name = policy.name if tuned is None else tuned.tuned_name(text)
    except InputError as error:
        return [f"policy: {text!r} cannot be looked up, so its access is not compared ({error})"]
    lines = []
    if source is None and record["policy"] != name:
        lines.append(f"policy: recorded {record['policy']!r}, the registry gives {name!r}")
    if source is not None and not record["policy"].startswith(f"{spec.parse(text)} from "):
        lines.append(f"policy: recorded {record['policy']!r}, its config gives {text!r} from a file")
    access = effective_access(policy.access, selection.settings)
    if record["access"] != access:
        lines.append(f"access: recorded {record['access']!r}, policy and env give {access!r}")
    return lines
