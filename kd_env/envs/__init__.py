"""Environments: views of a distillation through observations, actions and rewards.

Start with ``teacher_selection``, ``knowledge_selection`` and ``joint_selection``. Each has two forms: ``batches`` (one step is one batch)
and ``slots`` (one slot per instance); ``sb3`` adapts slots to Stable-Baselines3. What they share is ``selection``, which puts together:

- ``actions``: kinds of action, from numbers to weights; ``decisions``: from weights to a decision about the loss;
- ``observations``: from a mini-batch to blocks of numbers;
- ``measurement``: when students are measured; ``rewards`` and ``exploration``: what is paid for it;
- ``credit`` and ``credit_rewards``: which teacher, and which knowledge, lowered the held-out loss;
- ``settings`` and ``make``: from keywords to a selection; ``selection_snapshot``: its state as bytes; ``render``: its picture.
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
