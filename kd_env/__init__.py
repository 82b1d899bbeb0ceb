"""Reinforcement learning for knowledge distillation, as Gymnasium environments.

Each stage of an experiment is a package. A package imports only the stages before it::

    tasks -> models, knowledge -> student -> teachers -> bank -> distillation -> envs -> policies, agents, baselines -> benchmark -> cli

Importing this package registers the ids ``kd_env/...`` with Gymnasium. ``kd_env.distill`` does all stages at once.
"""

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from kd_env.envs.registration import register_envs

try:
    __version__ = version("kd-env")
except PackageNotFoundError:  # the source tree is on the path, but the package is not installed
    __version__ = "0+source"

register_envs()

if TYPE_CHECKING:
    from kd_env.benchmark.distilled import Distilled, distill

__all__ = ["Distilled", "distill"]


def __getattr__(name: str) -> Any:
    """Import the one-call interface on first use: it needs all stages."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from kd_env.benchmark import distilled

    return getattr(distilled, name)
