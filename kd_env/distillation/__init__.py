"""Distillation: students that learn from teachers, one decision an update.

``run`` is the training run, ``data`` what it reads, ``loss`` what a decision means, ``order`` the order of the examples, ``settings`` the
keywords, ``reward_meter`` measures students on held-out examples.
"""

from kd_env.distillation.data import EncodedTask
from kd_env.distillation.run import Distillation

__all__ = ["Distillation", "EncodedTask"]
