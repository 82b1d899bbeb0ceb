"""Snapshots of an environment: the run, the reward meter and what exploration remembers, as self-contained bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kd_env.distillation import snapshot
from kd_env.distillation.reward_split import RewardSplit
from kd_env.serialization import from_bytes, part, to_bytes

if TYPE_CHECKING:
    from kd_env.envs.selection import Selection


def save(selection: Selection) -> bytes:
    """Return the whole state of ``selection``."""
    run, meter = selection.distillation, selection.meter
    tensors = {f"run.{name}": tensor for name, tensor in snapshot.tensors_of(run).items()}
    tensors |= {f"meter.{name}": tensor for name, tensor in meter.tensors().items()}
    info = {
        "identity": _identity(selection),
        "run": snapshot.info_of(run),
        "meter": meter.info(),
        "exploration": selection.exploration.memory,
        "label_seeds": run.reward_split.label_seeds,
    }
    return to_bytes(tensors, info)


def load(selection: Selection, state: bytes) -> None:
    """Put ``selection`` into a saved state.

    Raises:
        InputError: not a snapshot, or one of another task, pool or settings.
    """
    tensors, info = from_bytes(state, _identity(selection))
    run, meter = selection.distillation, selection.meter
    run.reward_split = meter.split = RewardSplit(selection.data, selection.settings.reward.reward_labels, info["label_seeds"])
    snapshot.load(run, part(tensors, "run"), info["run"])
    meter.load(part(tensors, "meter"), info["meter"], run.student.device)
    selection.exploration.memory = info["exploration"]


def _identity(selection: Selection) -> dict[str, object]:
    return {**snapshot.identity(selection.distillation), **selection.settings.flat()}
