"""Reinforcement learning for knowledge distillation, as Gymnasium environments.

Each stage of an experiment is a package. A package imports only the stages before it::

    tasks -> models, knowledge -> student -> teachers -> bank -> distillation -> envs -> policies, agents, baselines -> benchmark -> cli

Importing this package registers the ids ``kd_env/...`` with Gymnasium. ``kd_env.distill`` does all stages at once.
"""

from typing import TYPE_CHECKING, Any

from kd_env.envs.registration import register_envs

register_envs()

if TYPE_CHECKING:
    from kd_env.benchmark.distilled import Distilled, distill

    __version__: str

__all__ = ["Distilled", "distill"]


def __getattr__(name: str) -> Any:
    """Return the version, or import the one-call interface, which needs all stages, on first use."""
    if name == "__version__":
        return _version()
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from kd_env.benchmark import distilled

    return getattr(distilled, name)


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version  # slow to import

    try:
        return version("kd-env")
    except PackageNotFoundError:  # the source tree is on the path, but the package is not installed
        return "0+source"
