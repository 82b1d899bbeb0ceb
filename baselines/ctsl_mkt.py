"""``ctsl_mkt``: two students learn from the teachers, and from each other's responses and relations (Sun et al. 2021, arXiv 2101.08471).

    L_s = kd_weight (mean_k tau^2 KL(p_k || q_s) + tau^2 KL(q_j || q_s) + l_distance(s, j) + 2 l_angle(s, j)) + (1 - kd_weight) CE(y, q_s)

The first student is kept. In the paper the only teacher of a student is its own copy that was trained before, without peers
(self-distillation); here the teachers are those of the pool, which may be that copy alone. :mod:`kd_env.knowledge.peer_relation` says what
could be read and what deviates. Also: all terms have one temperature and its square (paper: peers 1, the copy t), and the weights of the
terms are 1, since the paper's could not be read; ``peer(strength=...)`` and the like set others.
"""

from __future__ import annotations

from baselines.rule import WEIGHTS
from baselines.uniform import Uniform


class CTSLMKT(Uniform):
    """Weights of 1/K for the teachers, and the response and the relations of one peer."""

    access = "student outputs"
    paper = "Sun et al. 2021, arXiv 2101.08471"
    env_options = {**WEIGHTS, "knowledge": "response,peer,peer_relation", "num_students": 2}
