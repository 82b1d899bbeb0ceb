"""Reinforcement learning for knowledge distillation, as Gymnasium environments.

One way through, a package for each stage; imports point from later to earlier stages only::

    tasks -> models, knowledge -> student -> teachers -> bank -> distillation -> envs -> policies, agents, baselines -> benchmark -> cli

Importing this package registers the ids ``kd_env/...`` with Gymnasium.
"""

from importlib.metadata import PackageNotFoundError, version

from kd_env.envs.registration import register_envs

try:
    __version__ = version("kd-env")
except PackageNotFoundError:  # a source tree on the path, not installed
    __version__ = "0+source"

register_envs()
