"""``mutual_learning``: two students learn from the teachers and from each other (Zhang et al. 2018, arXiv 1706.00384); the first is kept.

    L_s = kd_weight (mean_k tau^2 KL(p_k || q_s) + mean_(j != s) tau^2 KL(q_j || q_s)) + (1 - kd_weight) CE(y, q_s)

Zhang et al. have only labels and peers (``knowledge=peer`` with ``kd_weight=0.5``); here teachers teach as well, as in all policies of this
project. ``num_students`` is the size of the cohort. Other deviations are listed in :mod:`kd_env.knowledge.peers`.
"""

from __future__ import annotations

from baselines.rule import WEIGHTS
from baselines.uniform import Uniform


class MutualLearning(Uniform):
    """Weights of 1/K for the teachers, and one peer."""

    access = "student outputs"
    paper = "Zhang et al. 2018, arXiv 1706.00384"
    env_options = {**WEIGHTS, "knowledge": "response,peer", "num_students": 2}
