"""``most_confident``: the teacher with the largest max-probability."""

from __future__ import annotations

from torch import Tensor

from baselines.rule import ONE, BaseRule, choice
from kd_env.policies import PolicyBatch


def choose(teacher_logits: Tensor) -> Tensor:
    """Return the most confident teacher, ``[B, K, C]`` -> ``[B]``, the first of equals."""
    return teacher_logits.log_softmax(2).amax(2).argmax(1)


class MostConfident(BaseRule):
    """The teacher that is most confident."""

    access = "teacher outputs"
    env_options = ONE

    def decide(self, batch: PolicyBatch) -> Tensor:
        """Choose the most confident teacher of each instance."""
        return choice(choose(batch.teacher_logits).cpu(), batch.num_teachers)
