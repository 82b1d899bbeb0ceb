"""``ikd``: teachers that learn from their student, "Learning to Teach with Student Feedback" (Liu et al. 2021, arXiv 2109.04641).

    course step   theta' = theta - rate dL(theta, phi)/dtheta              the student's own update, L the loss with weights of 1/K
    exam step     phi <- Adam( d/dphi [CE(theta'; exam) + label_weight sum_k CE(T_k; exam)] )

The teachers answer live. They learn by the setting ``teacher_learning``, whose code is :mod:`kd_env.distillation.teacher_learning`; the
rule itself is ``uniform``. So any other policy can select among teachers that learn, and a run of such teachers is replayed, forked and
continued like any other.

Deviations: the paper has one teacher; here K teachers share the exam. Its exam is drawn from the training data
(``teacher_learning=feedback(exam=train)``); the default is the reward split. The rest is in ``docs/systems/ikd.md``.
"""

from __future__ import annotations

from baselines.rule import WEIGHTS
from baselines.uniform import Uniform
from kd_env.policies import Choice, SearchSpace


class IKD(Uniform):
    """Weights of 1/K, and teachers that follow the student's held-out loss through its step."""

    access = "reward labels"
    supports_population = False
    paper = "Liu et al. 2021, arXiv 2109.04641"
    env_options = {**WEIGHTS, "teacher_answers": "live", "teacher_learning": "feedback"}
    search_space: SearchSpace = {
        "teacher_learning": Choice(tuple(f"feedback(lr={lr},label_weight={weight})" for lr in (0.0001, 0.001) for weight in (0, 1)))
    }
