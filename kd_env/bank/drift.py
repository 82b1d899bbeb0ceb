"""Apply a pool's drift to teachers' outputs. In: outputs as the bank keeps them, and which examples are taught after the change."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kd_env.bank.bank import TeacherOutputs
from kd_env.teachers.teacher import Drift


def after_drift(outputs: TeacherOutputs, drift: Drift, changed: np.ndarray) -> TeacherOutputs:
    """Return the outputs with the teachers' new roles where ``changed [B]`` is true."""
    if not changed.any():
        return outputs

    def new(arrays: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
        return tuple(
            np.where(changed.reshape(-1, *[1] * (array.ndim - 1)), arrays[role], array)
            for role, array in zip(drift.roles, arrays, strict=True)
        )

    names = outputs.stages[0] if outputs.stages else ()  # equal for all teachers, as all shapes
    stages = {stage: new([maps[stage] for maps in outputs.stages]) for stage in names}
    roles = np.where(changed[:, None], drift.roles, np.arange(len(drift.roles)))  # [B, K]
    logits = np.take_along_axis(outputs.logits, roles[:, :, None], axis=1)
    return TeacherOutputs(
        logits,
        new(outputs.features),
        new(outputs.layers) if outputs.layers else (),
        new(outputs.attention) if outputs.attention else (),
        new(outputs.maps) if outputs.maps else (),
        tuple({stage: arrays[k] for stage, arrays in stages.items()} for k in range(len(outputs.stages))),
    )
