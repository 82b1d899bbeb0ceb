"""Define the Gymnasium environments: views of a distillation through observations, actions and rewards.

Start with ``teacher_selection``, ``knowledge_selection`` and ``joint_selection``. Each environment has two forms: ``batches`` (one step is
one mini-batch) and ``slots`` (one slot per instance). ``sb3`` adapts slots to Stable-Baselines3. Both forms use ``selection``, which
combines:

- ``actions``: kinds of action, from numbers to weights; ``decisions``: from weights to a decision about the loss;
- ``observations``: from a mini-batch to blocks of numbers;
- ``measurement``: the schedule of measurements; ``rewards`` and ``exploration``: the rewards;
- ``credit`` and ``credit_rewards``: the contribution of each teacher and knowledge type to the held-out improvement, and its reward;
- ``settings`` and ``make``: from keywords to a selection; ``selection_snapshot``: its state as bytes; ``render``: its picture.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kd_env.envs.sb3 import SB3VecEnv

__all__ = ["SB3VecEnv"]


def __getattr__(name: str) -> Any:
    """Import Stable-Baselines3 only if ``SB3VecEnv`` is used."""
    if name == "SB3VecEnv":
        from kd_env.envs.sb3 import SB3VecEnv

        return SB3VecEnv
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
