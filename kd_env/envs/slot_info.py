"""Build the ``info`` of slots: arrays over the slots, each with a mask ``_key`` of the slots that have a value, as in Gymnasium."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from kd_env.envs.selection import Selection
from kd_env.envs.step import Step


def of_step(selection: Selection, step: Step, slots: np.ndarray) -> dict[str, Any]:
    """Return the ``info`` of a step for the slots in the mask ``slots``, those of the students that were taught."""
    terms: dict[str, Any] = dict(step.reward_terms)
    if selection.settings.interface.observe_labels:
        terms["student_ce"] = _per_slot(selection, step.student_ce)
    diverged = _of_students(selection, step.diverged)
    values = {"example_ids": _per_slot(selection, step.batch.example_ids), "diverged": diverged, **step.credit}
    if step.credit_fold is not None:
        values["credit_fold"] = step.credit_fold
    reward_terms = {**_masked(terms, slots), **_measured(selection, "improvement", step.improvement, slots)}
    validation = _measured(selection, "validation", step.validation, slots)
    return {**_masked(values, slots), "reward_terms": reward_terms, "_reward_terms": slots.copy(), **validation}


def with_reset(selection: Selection, info: dict[str, Any], slots: np.ndarray) -> dict[str, Any]:
    """Return ``info`` with the first mini-batch of new students in their ``slots``."""
    ids = _per_slot(selection, selection.distillation.observe().example_ids)
    ids = np.where(slots.reshape(-1, *[1] * (ids.ndim - 1)), ids, info.get("example_ids", ids))
    return {**info, "example_ids": ids, "_example_ids": slots | info.get("_example_ids", False)}


def of_slots(info: Mapping[str, Any], slots: np.ndarray) -> dict[str, Any]:
    """Return ``info`` for the slots in the mask ``slots``. Keys that none of them has are left out."""
    names = [name for name in info if not name.startswith("_") and (info[f"_{name}"] & slots).any()]
    values = {name: of_slots(info[name], slots) if isinstance(info[name], dict) else info[name] for name in names}
    return {**values, **{f"_{name}": info[f"_{name}"] & slots for name in names}}


def minimal(info: Mapping[str, Any]) -> dict[str, Any]:
    """Return the ``info`` of ``info="minimal"``: the same keys for all slots after each step and reset, and Gymnasium's final ones."""
    every_slot = np.ones(len(info["example_ids"]), dtype=np.bool_)
    diverged = info.get("diverged", ~every_slot) & info.get("_diverged", every_slot)
    final = {name: info[name] for name in ("final_obs", "_final_obs", "final_info", "_final_info") if name in info}
    if final:
        ended = info["_final_info"]
        final["final_info"] = _masked({name: info["final_info"][name] for name in ("example_ids", "diverged")}, ended)
    return {**_masked({"example_ids": info["example_ids"], "diverged": diverged}, every_slot), **final}


def _masked(info: Mapping[str, Any], slots: np.ndarray) -> dict[str, Any]:
    """Return ``info`` with the same mask for all keys."""
    return {**info, **{f"_{name}": slots.copy() for name in info}}


def _measured(selection: Selection, name: str, values: np.ndarray | None, slots: np.ndarray) -> dict[str, Any]:
    """Return values per student ``[S]`` for the slots of students that have a value."""
    if values is None or not (measured := slots & _of_students(selection, np.isfinite(values))).any():
        return {}
    return {name: np.where(measured, _of_students(selection, values), 0.0), f"_{name}": measured}


def _of_students(selection: Selection, values: np.ndarray) -> np.ndarray:
    """Return values per student ``[S]`` as ``[slots]``."""
    return np.repeat(values, selection.num_slots // selection.num_students)


def _per_slot(selection: Selection, values: np.ndarray) -> np.ndarray:
    """Return values per instance as ``[slots]``, or as ``[slots, B]`` if a slot decides about a mini-batch."""
    return values.copy() if selection.settings.interface.granularity == "instance" else values.reshape(selection.num_slots, -1).copy()
