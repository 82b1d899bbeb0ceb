"""Reinforcement learning for knowledge distillation, as Gymnasium environments.

One way through, each stage a folder or file of its own::

    tasks -> teachers -> knowledge (bank) -> student -> distillation -> envs -> agents, baselines -> benchmark -> report

Importing this package makes the ids ``kd_env/...`` known to ``gymnasium.make``.
"""

from importlib.metadata import PackageNotFoundError, version

from kd_env.envs.registration import register_envs

try:
    __version__ = version("kd-env")
except PackageNotFoundError:  # a source tree on the path, not installed
    __version__ = "0+source"

register_envs()
