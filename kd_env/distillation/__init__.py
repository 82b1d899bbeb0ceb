"""Distillation: students that learn from teachers, one decision per update.

``run`` is the training run, ``data`` what it reads, ``loss`` what a decision means, ``order`` the order of the examples, ``settings`` its
keywords, ``state`` what is kept per student. ``reward_split`` holds the held-out labelled examples, ``reward_meter`` measures students on
them; the run knows of neither rewards nor credit.
"""

from kd_env.distillation.data import EncodedTask
from kd_env.distillation.run import Distillation

__all__ = ["Distillation", "EncodedTask"]
