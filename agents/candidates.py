"""Ways to teach that :mod:`agents.piloted` tries, and students that try them. In: names of the learner and rules. Out: candidates."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Candidate(NamedTuple):
    """A way to teach: by the learner (``rule`` is ``None``) or by a rule, with or without reward labels that teach.

    If teachers do not teach, the weights of ``rule`` have strength 0. Training labels still teach where the setting uses them.
    """

    name: str
    rule: int | None
    labels_teach: bool
    teachers_teach: bool = True


class Pilot(NamedTuple):
    """A student that tries a candidate, and the half of the reward labels that it is taught, if labels teach."""

    candidate: Candidate
    taught_half: int | None


def all_candidates(names: Mapping[int | None, str], labels_may_teach: bool) -> list[Candidate]:
    """Return the learner with labels first, and labels without teachers last; if labels may not teach, only the learner and the rules.

    Args:
        names: name of the learner (key ``None``) and of each rule.
        labels_may_teach: whether there are candidates whose labels teach.
    """
    candidates = []
    for teach in (True, False) if labels_may_teach else (False,):
        suffix = (" with labels" if teach else " without labels") if labels_may_teach else ""
        candidates += [Candidate(name + suffix, rule, teach) for rule, name in names.items()]
    if labels_may_teach:
        candidates.append(Candidate("labels alone", 0, labels_teach=True, teachers_teach=False))
    return candidates


def pilots_of(candidates: Sequence[Candidate]) -> list[Pilot]:
    """Return a pilot of each candidate without labels, and two of each candidate with labels."""
    return [Pilot(candidate, half) for candidate in candidates for half in ((0, 1) if candidate.labels_teach else (None,))]


def factors_of(candidates: Sequence[Candidate], terms: Iterable[str], labels_may_teach: bool, weights: Tensor) -> dict[str, Tensor]:
    """Return factors of the strengths for the rows of several students, by name.

    Args:
        candidates: how each student is taught.
        terms: knowledge types of the setting.
        labels_may_teach: whether the setting has ``reward_ce``.
        weights: weights of the teachers for the n rows of one student, ``[n, K]``; the factors have their type and device.
    """

    def per_row(of_students: list[bool]) -> Tensor:
        return torch.tensor(of_students).to(weights).repeat_interleave(len(weights))

    if not labels_may_teach:
        return {}
    teachers_teach = per_row([candidate.teachers_teach for candidate in candidates])
    return {"reward_ce": per_row([candidate.labels_teach for candidate in candidates]), **dict.fromkeys(terms, teachers_teach)}
