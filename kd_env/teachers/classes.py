"""Match the classes of a checkpoint with those of the task. Out: for each class of the task the numbers of the checkpoint's classes.

Names are compared as they are, then in lower case, then by their beginning (``NEGATIVE`` is ``neg``); a mapping of the user's says the
rest. Classes that a teacher lacks are masked, classes that only it has are left out, and several that are mapped to one class are joined:
their probabilities add up. Classes called ``LABEL_0`` and so on say nothing, unless the task's are called so too; they are matched by the
labels of validation where these are clear.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from kd_env import spec
from kd_env.errors import InputError
from kd_env.tasks import Task

MASKED = -1e4
"""Logit of a class that a teacher lacks: its probability is 0 at any temperature in use, and it is finite in half precision."""
SHORTEST = 3
"""Letters that the beginning of a name needs to be compared."""
SURE = 4.0
"""Standard errors by which another order of the classes must be more accurate on validation to replace the assumed one."""


class ClassMap(NamedTuple):
    """How a checkpoint's classes become those of the task.

    Attributes:
        columns: for each class of the task the numbers of the checkpoint's classes; empty where the teacher lacks it.
        notes: what was assumed.
        assumed: the order is assumed, since the names say nothing.
    """

    columns: tuple[tuple[int, ...], ...]
    notes: tuple[str, ...] = ()
    assumed: bool = False

    @property
    def key(self) -> str:
        """Text that tells maps apart: of a plain order, the list of its numbers."""
        return str([column[0] for column in self.columns] if self.is_linear and all(self.columns) else [list(c) for c in self.columns])

    @property
    def is_linear(self) -> bool:
        """Whether the task's logits are a linear map of the checkpoint's: no classes are joined."""
        return all(len(column) <= 1 for column in self.columns)

    def logits(self, logits: Tensor) -> Tensor:
        """Return logits in the order of the task's classes, ``[B, C]``, from the checkpoint's."""
        if self.is_linear and all(self.columns):
            return logits[:, [column[0] for column in self.columns]]
        masked = torch.full_like(logits[:, 0], MASKED)
        parts = [logits[:, list(column)].logsumexp(1) if column else masked for column in self.columns]
        return torch.stack(parts, 1)

    def head(self, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """Return weights ``[C, D]`` and biases ``[C]`` of the last layer in the order of the task's classes."""
        rows = [
            (weight[column[0]], bias[column[0]]) if column else (torch.zeros_like(weight[0]), torch.full_like(bias[0], MASKED))
            for column in self.columns
        ]
        return torch.stack([row[0] for row in rows]), torch.stack([row[1] for row in rows])


def match_classes(text: str, id2label: Mapping[int, str], task: Task, mapping: Mapping[str, str] | None = None) -> ClassMap:
    """Match the classes of a checkpoint by their names.

    Args:
        text: the checkpoint as the user named it, for messages.
        id2label: names of its classes by number.
        mapping: names of the task's classes by those of the checkpoint; an empty name leaves a class out.

    Raises:
        InputError: the mapping names a class that is not there, or fewer than two of the task's classes are matched.
    """
    names = [str(id2label[number]).strip() for number in sorted(id2label)]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise InputError(f"checkpoint {text!r} has two classes of the name {twice!r}; change id2label in its config.json")
    if mapping:
        return _as_mapped(text, names, task, mapping)
    numbers = list(range(task.num_classes))
    if sorted(names) == sorted(task.class_names):
        return ClassMap(tuple((names.index(name),) for name in task.class_names))
    if len(names) == task.num_classes and are_placeholders(names):
        return ClassMap(tuple((number,) for number in numbers), assumed=True)
    known = [name.casefold() for name in task.class_names]
    if len(set(known)) == len(known) and sorted(known) == sorted(name.casefold() for name in names):
        order = [[name.casefold() for name in names].index(name) for name in known]
        return ClassMap(tuple((number,) for number in order))
    pairs = {number: match for number, name in enumerate(names) if (match := _similar(name, names, task.class_names)) is not None}
    columns = tuple(tuple(number for number, match in pairs.items() if match == target) for target in numbers)
    if sum(map(bool, columns)) < 2:
        raise InputError(_no_match(text, names, task))
    renamed = [f"{names[n]} is {task.class_names[m]}" for n, m in pairs.items() if names[n].casefold() != known[m]]
    notes = [f"matched by the beginning of their names: {_listed(renamed, 6)}"] if renamed else []
    return ClassMap(columns, (*notes, *_partial_notes(names, columns, task)))


def match_by_validation(class_map: ClassMap, logits: np.ndarray, labels: np.ndarray, num_classes: int) -> ClassMap:
    """Return the map with the order that the labels of validation say, if it is clearly more accurate than the assumed one.

    An order is found on one half of the examples and measured on the other, since the best of many orders is better by chance. It must be
    right for half of all examples, too: an untrained network is not.

    Args:
        logits: the checkpoint's own, ``[N, C]``, of validation examples.
        labels: of these examples, ``[N]``.
    """
    from scipy.optimize import linear_sum_assignment

    predictions = logits.argmax(1)

    def best_order(rows: slice) -> np.ndarray:
        counts = np.zeros((num_classes, num_classes))
        np.add.at(counts, (labels[rows], predictions[rows]), 1)
        return np.asarray(linear_sum_assignment(-counts)[1])

    order, halves = best_order(slice(None)), (slice(0, None, 2), slice(1, None, 2))
    before, after = (predictions == labels).mean(), (order[labels] == predictions).mean()
    right = np.concatenate([best_order(halves[1 - k])[labels[halves[k]]] == predictions[halves[k]] for k in (0, 1)])
    error = 0.5 / len(labels) ** 0.5
    scores = f"validation accuracy {before:.3f} in this order"
    if after >= 0.5 and right.mean() - before > SURE * error:
        note = f"its classes LABEL_0 to LABEL_{num_classes - 1} are matched by what validation says: {after:.3f} instead of {before:.3f}"
        return ClassMap(tuple((int(number),) for number in order), (note,))
    return class_map._replace(notes=(f"its classes LABEL_0 to LABEL_{num_classes - 1} are assumed to be in the task's order ({scores})",))


def are_placeholders(names: Sequence[str]) -> bool:
    """Return whether classes are called ``LABEL_0`` and so on, as Transformers calls them where nobody named them."""
    return all(name.upper() == f"LABEL_{number}" for number, name in enumerate(names))


def parse_mapping(place: str, text: str) -> dict[str, str]:
    """Return the mapping that ``NEGATIVE=neg;POSITIVE=pos`` writes; ``neutral=`` leaves a class out.

    Raises:
        InputError: a part has no ``=``, or a class is given twice.
    """
    mapping: dict[str, str] = {}
    for part in filter(str.strip, text.split(";")):
        name, equals, target = (word.strip() for word in part.partition("="))
        if not equals or not name:
            raise InputError(
                f"{place}: {part.strip()!r} is not a pair; write classes=THEIRS=YOURS;THEIRS=YOURS, and THEIRS= leaves one out"
            )
        if name in mapping:
            raise InputError(f"{place}: class {name!r} is given twice; give it once")
        mapping[name] = target
    return mapping


def _as_mapped(text: str, names: list[str], task: Task, mapping: Mapping[str, str]) -> ClassMap:
    targets = {name.casefold(): number for number, name in enumerate(task.class_names)} | {
        name: number for number, name in enumerate(task.class_names)
    }
    chosen: dict[str, str] = {}
    for key, value in mapping.items():
        name, target = key.strip(), str(value).strip()
        named = [name] if name in names else [known for known in names if known.casefold() == name.casefold()]
        if not named:
            raise spec.unknown(f"class of checkpoint {text!r}", name, names)
        if target and target not in targets and target.casefold() not in targets:
            raise spec.unknown(f"class of task {task.name!r} for {name!r} of checkpoint {text!r}", target, task.class_names)
        chosen |= dict.fromkeys(named, target)
    kept = [chosen.get(name, name) for name in names]  # a class that the mapping does not name keeps its own name
    numbers = [targets.get(target, targets.get(target.casefold())) for target in kept]
    columns = tuple(tuple(n for n, match in enumerate(numbers) if match == target) for target in range(task.num_classes))
    if sum(map(bool, columns)) < 2:
        raise InputError(_no_match(text, names, task))
    return ClassMap(columns, tuple(_partial_notes(names, columns, task)))


def _partial_notes(names: Sequence[str], columns: tuple[tuple[int, ...], ...], task: Task) -> list[str]:
    used = {number for column in columns for number in column}
    left_out = [name for number, name in enumerate(names) if number not in used]
    lacking = [name for name, column in zip(task.class_names, columns, strict=True) if not column]
    joined = [
        f"{' and '.join(names[n] for n in column)} to {target}"
        for target, column in zip(task.class_names, columns, strict=True)
        if len(column) > 1
    ]
    notes = [f"its classes that the task does not have are left out: {_listed(left_out, 6)}"] if left_out else []
    notes += [f"it lacks classes of the task, which it never answers: {_listed(lacking, 6)}"] if lacking else []
    return notes + ([f"joined: {_listed(joined, 6)}"] if joined else [])


def _similar(name: str, names: Sequence[str], class_names: Sequence[str]) -> int | None:
    """Return the number of the only class of the task that ``name`` equals or whose name begins alike; ``None`` if that is not clear."""
    if name in class_names:
        return list(class_names).index(name)
    folded = [known.casefold() for known in class_names]
    if folded.count(name.casefold()) == 1:
        return folded.index(name.casefold())
    matches = [number for number, known in enumerate(folded) if _begin_alike(name.casefold(), known)]
    if len(matches) != 1:
        return None
    rivals = [other for other in names if other != name and _begin_alike(other.casefold(), folded[matches[0]])]
    return None if rivals else matches[0]


def _begin_alike(first: str, second: str) -> bool:
    shorter, longer = sorted((first, second), key=len)
    return len(shorter) >= SHORTEST and shorter.isalpha() and longer.startswith(shorter)


def _no_match(text: str, names: Sequence[str], task: Task) -> str:
    example = ";".join(f"{name}={known}" for name, known in zip(names[:2], task.class_names[:2], strict=False))
    return (
        f"checkpoint {text!r} has the classes {len(names)}: {_listed(names, 6)}, task {task.name!r} has "
        f"{task.num_classes}: {_listed(task.class_names, 6)}; give a teacher of the same classes, or say which is which, "
        f"as --teachers 'PATH(classes={example})'"
    )


def _listed(names: Sequence[str], most: int) -> str:
    return ", ".join(names) if len(names) <= most else f"{', '.join(names[: most - 1])} ..."
