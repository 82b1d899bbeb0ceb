"""Reinforcement learning for knowledge distillation, as Gymnasium environments.

Each stage of an experiment is a package. A package imports only the stages before it::

    tasks -> models, knowledge -> student -> teachers -> bank -> distillation -> envs -> policies, agents, baselines -> benchmark -> cli

Importing this package registers the ids ``kd_env/...`` with Gymnasium.
"""

from importlib.metadata import PackageNotFoundError, version

from kd_env.envs.registration import register_envs

try:
    __version__ = version("kd-env")
except PackageNotFoundError:  # the source tree is on the path, but the package is not installed
    __version__ = "0+source"

register_envs()
