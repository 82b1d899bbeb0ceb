"""``mutual_learning``: two students learn from the teachers and from each other (Zhang et al. 2018, arXiv 1706.00384); the first is kept.

    L_s = strength (mean_k tau^2 KL(p_k || q_s) + mean_(j != s) tau^2 KL(q_j || q_s)) + (1 - strength) CE(y, q_s)

Zhang et al. have labels and peers alone (``knowledge=peer`` with ``kd_weight=0.5``); here the teachers teach as well, as in every policy of
this project. ``num_students`` is the size of the cohort. For what else differs see :mod:`kd_env.knowledge.peers`.
"""

from __future__ import annotations

from baselines.rule import WEIGHTS
from baselines.uniform import Uniform


class MutualLearning(Uniform):
    """Every teacher 1/K, and one peer."""

    access = "student outputs"
    paper = "Zhang et al. 2018, arXiv 1706.00384"
    env_options = {**WEIGHTS, "knowledge": "response,peer", "num_students": 2}
