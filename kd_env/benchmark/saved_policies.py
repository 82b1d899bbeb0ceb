"""Saved policies: what a trial's policy learned, for use in other trials. In: a finished trial and its policy. Out: files in DIR/policies.

``<trial>.agent`` is what the policy's ``save`` wrote, ``<trial>.json`` says where the policy comes from. A policy whose class declares
``any_pool = True`` can be used with any number of teachers and of classes. One that declares ``any_student = True`` does not read the
observation, and needs the same numbers of teachers and of classes. Others also need the same observation columns.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kd_env import spec
from kd_env.errors import InputError
from kd_env.paths import naming, partial_file
from kd_env.policies.context import PolicyContext
from kd_env.policies.faults import faults_of
from kd_env.policies.registry import PolicyClass
from kd_env.serialization import checksum

FOLDER = "policies"
NUMBERS = ("number of teachers", "number of classes")
HOW = "kd-env run --save-policy --out DIR saves policies"


@dataclass(frozen=True)
class Source:
    """Where a saved policy comes from.

    Attributes:
        policy: name of the policy, with options.
        trial: id of the trial in which it learned.
        task: name of that trial's task.
        pool: name of its pool.
        seed: its seed.
        updates: number of student updates that it learned from.
        shape: numbers of teachers and of classes, and of columns of each block of an observation.
    """

    policy: str
    trial: str
    task: str
    pool: str
    seed: int
    updates: int
    shape: dict[str, int]


def agent_file(directory: Path, trial: str) -> Path:
    """Return where the policy of a trial is kept."""
    return directory / FOLDER / f"{trial}.agent"


def can_be_saved(policy: PolicyClass) -> bool:
    """Return whether a policy has ``save`` and ``load``."""
    return callable(getattr(policy.make, "save", None)) and callable(getattr(policy.make, "load", None))


def save(directory: Path, policy: Any, source: Source) -> None:
    """Write a policy and where it comes from. The second file is written last, so a policy that has it is complete."""
    file = agent_file(directory, source.trial)
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = partial_file(file)
    with naming(file), faults_of(policy, "save"):
        policy.save(str(partial))
    if not partial.is_file():
        raise InputError(f"policy {source.policy!r}: save() wrote no file at the path that it got; write one file there")
    partial.replace(file)
    with naming(file.with_suffix(".json")):
        content = asdict(source)
        partial.write_text(json.dumps({**content, "checksum": checksum({}, content)}, indent=1) + "\n")
        partial.replace(file.with_suffix(".json"))


def shape_of(env: Any, num_classes: int) -> dict[str, int]:
    """Return :attr:`Source.shape` of an environment."""
    columns = {name: int(space.shape[0]) for name, space in env.single_observation_space.items()}
    return {**dict(zip(NUMBERS, (env.selection.num_teachers, num_classes), strict=True)), **columns}


def source_of(file: Path) -> Source:
    """Read where a saved policy comes from.

    Raises:
        InputError: the file is not a saved policy, or it has changed since it was written.
    """
    try:
        content = json.loads(file.with_suffix(".json").read_text())
        if content.pop("checksum", None) not in (None, checksum({}, content)):  # files of older versions have none
            raise InputError(f"policy-from {file}: the .json file beside it has changed since it was written; {HOW}")
        source = Source(**content)
        if not all(isinstance(value, int | str | dict) for value in vars(source).values()):
            raise TypeError
    except InputError:
        raise
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        raise InputError(f"policy-from {file}: not a saved policy with a .json file beside it; {HOW}") from None
    if not file.is_file():
        raise InputError(f"policy-from {file}: no such file; {HOW}")
    return source


def find(place: Path, policies: Sequence[str], seeds: Sequence[int]) -> dict[int, list[Path]]:
    """Return by seed the files of the policies that a trial uses: one for each of ``policies``; without any, for each policy of ``place``.

    In a folder it is the policy that learned with the same seed, or the only one.

    Raises:
        InputError: there is no such policy, or more than one.
    """
    files = [place] if place.is_file() else [path.with_suffix(".agent") for path in sorted((place / FOLDER).glob("*.json"))]
    if not files:
        raise InputError(f"policy-from {place}: holds no saved policies; {HOW}")
    by_policy: dict[str, dict[int, list[Path]]] = {}
    for file in files:
        source = source_of(file)
        by_policy.setdefault(str(spec.parse(source.policy)), {}).setdefault(source.seed, []).append(file)
    chosen: dict[int, list[Path]] = {seed: [] for seed in seeds}
    for text in policies or by_policy:
        policy = str(spec.parse(text))
        if policy not in by_policy:
            raise InputError(f"policy-from {place}: holds no {policy!r}, but {', '.join(by_policy)}; name one of them with --policy")
        by_seed = by_policy[policy]
        all_files = [file for of_seed in by_seed.values() for file in of_seed]
        for seed in seeds:
            candidates = all_files if len(all_files) == 1 else by_seed.get(seed, [])
            if len(candidates) != 1:
                shown = ", ".join(str(source_of(file).seed) for file in all_files)
                raise InputError(
                    f"policy-from {place}: {len(candidates)} policies {policy!r} of seed {seed} among seeds {shown}; "
                    f"give these --seeds, or name one file of {place / FOLDER}"
                )
            chosen[seed] += candidates
    return chosen


def load(policy: PolicyClass, file: Path, env: Any, num_classes: int, student: int | None = None) -> Any:
    """Return the saved policy for ``env``, a vector environment.

    Args:
        policy: its class.
        file: the file that :func:`save` wrote.
        env: the environment.
        num_classes: number of classes of its task.
        student: the student of a population that it teaches; by default it acts for all slots.

    Raises:
        InputError: the policy cannot be loaded, or does not fit the environment.
    """
    source, shape = source_of(file), shape_of(env, num_classes)
    needed: Sequence[str] = NUMBERS if getattr(policy.make, "any_student", False) else list(shape)
    if getattr(policy.make, "any_pool", False):
        needed = ()
    different = [f"{name} {source.shape.get(name)}, here {shape[name]}" for name in needed if source.shape.get(name) != shape[name]]
    if different:
        raise InputError(
            f"policy-from {file}: {source.policy} learned on {source.task} with {'; '.join(different)}; it needs the same numbers, "
            "unlike scorer_credit, population, actor_critic and ppo"
        )
    context = env if policy.owns_loop else PolicyContext(env, policy.name, policy.access, student)
    try:
        return policy.make.load(str(file), context)
    except InputError:
        raise
    except (RuntimeError, ValueError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"policy-from {file}: does not fit the settings of this trial: {reason[:300]}; use those of its own, "
            "or let it learn again if another version of kd-env saved it"
        ) from error


def described(file: Path) -> dict[str, Any]:
    """Return what a record says of a saved policy: the file, its hash, and where it comes from."""
    source = {name: value for name, value in asdict(source_of(file)).items() if name != "shape"}
    return {"file": str(file), "sha256": hashlib.sha256(file.read_bytes()).hexdigest(), **source}
