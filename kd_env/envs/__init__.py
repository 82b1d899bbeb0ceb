"""Environments: thin views of a distillation.

``teacher_selection``, ``knowledge_selection`` and ``joint_selection``, each in two forms: ``batches`` (one step is one batch) and ``slots``
(one slot an instance); ``sb3`` adapts slots to Stable-Baselines3. What they share is in ``selection``, made of ``actions``,
``observations``, ``rewards``, ``credit`` and ``render``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kd_env.envs.sb3 import SB3VecEnv

__all__ = ["SB3VecEnv"]


def __getattr__(name: str) -> Any:
    """Import Stable-Baselines3 only when it is asked for."""
    if name == "SB3VecEnv":
        from kd_env.envs.sb3 import SB3VecEnv

        return SB3VecEnv
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
