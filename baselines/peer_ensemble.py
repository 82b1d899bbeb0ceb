"""``peer_ensemble``: three students learn from the teachers and from the mean of the other two; the first is kept.

    L_s = strength (mean_k tau^2 KL(p_k || q_s) + tau^2 KL(mean_(j != s) q_j || q_s)) + (1 - strength) CE(y, q_s)

After peer-collaborative learning (Wu & Gong 2021, arXiv 2006.04147), and not the whole of it: see :mod:`kd_env.knowledge.peers`.
``num_students`` is the size of the cohort; of two it is ``mutual_learning``.
"""

from __future__ import annotations

from baselines.rule import WEIGHTS
from baselines.uniform import Uniform


class PeerEnsemble(Uniform):
    """Every teacher 1/K, and an ensemble of two peers."""

    access = "student outputs"
    paper = "after Wu & Gong 2021, arXiv 2006.04147"
    env_options = {**WEIGHTS, "knowledge": "response,peer_ensemble", "num_students": 3}
