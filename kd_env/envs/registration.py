"""Register the environments with Gymnasium, without importing their modules."""

from __future__ import annotations

import gymnasium

ENVIRONMENTS = {
    f"kd_env/{name}Selection-v0": (
        f"kd_env.envs.{name.lower()}_selection:{name}SelectionEnv",
        f"kd_env.envs.{name.lower()}_selection:{name}SelectionVectorEnv",
    )
    for name in ("Teacher", "Knowledge", "Joint")
}


def register_envs() -> None:
    """Register each id once."""
    for name, (entry_point, vector_entry_point) in ENVIRONMENTS.items():
        if name not in gymnasium.registry:
            gymnasium.register(name, entry_point=entry_point, vector_entry_point=vector_entry_point)
