"""``peer_ensemble``: three students learn from the teachers and from the mean of the other two; the first is kept.

    L_s = kd_weight (mean_k tau^2 KL(p_k || q_s) + tau^2 KL(mean_(j != s) q_j || q_s)) + (1 - kd_weight) CE(y, q_s)

After peer-collaborative learning (Wu & Gong 2021, arXiv 2006.04147), but not all of it: see :mod:`kd_env.knowledge.peers`.
``num_students`` is the size of the cohort; with two it equals ``mutual_learning``.
"""

from __future__ import annotations

from baselines.rule import WEIGHTS
from baselines.uniform import Uniform


class PeerEnsemble(Uniform):
    """Weights of 1/K for the teachers, and an ensemble of two peers."""

    access = "student outputs"
    paper = "after Wu & Gong 2021, arXiv 2006.04147"
    env_options = {**WEIGHTS, "knowledge": "response,peer_ensemble", "num_students": 3}
