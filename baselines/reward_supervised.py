"""``reward_supervised``: the student is trained on the reward labels alone; a rival of policies that are paid with them."""

from __future__ import annotations

from baselines.no_teacher import NoTeacher
from baselines.rule import RULE_OPTIONS


class RewardSupervised(NoTeacher):
    """Cross-entropy on mini-batches of the reward split (env keyword ``reward_ce``)."""

    access = "reward labels"
    paper = ""
    env_options = {**RULE_OPTIONS, "action": "subset", "kd_weight": 1.0, "reward_ce": 1.0}
