"""``no_teacher``: the student learns from the hard labels alone; refused where hard labels are not used (``kd_weight=1``).

With the setting ``block_swap``, blocks of the teachers take part in training, and it equals ``iakd``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from baselines.rule import RULE_OPTIONS, BaseRule
from kd_env.policies import PolicyBatch


class NoTeacher(BaseRule):
    """Selects no teacher."""

    access = "train labels"
    env_options = {**RULE_OPTIONS, "action": "subset", "kd_weight": 0.0}

    def decide(self, batch: PolicyBatch) -> Tensor:
        """Return weights of zero."""
        return torch.zeros(batch.num_rows, batch.num_teachers)
