"""Make the ids known to Gymnasium, without importing what they stand for."""

from __future__ import annotations

import gymnasium

ENVIRONMENTS = {
    "kd_env/TeacherSelection-v0": (
        "kd_env.envs.teacher_selection:TeacherSelectionEnv",
        "kd_env.envs.slots:TeacherSelectionVectorEnv",
    ),
}


def register_envs() -> None:
    """Register every id once."""
    for name, (entry_point, vector_entry_point) in ENVIRONMENTS.items():
        if name not in gymnasium.registry:
            gymnasium.register(name, entry_point=entry_point, vector_entry_point=vector_entry_point)
