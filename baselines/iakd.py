"""``iakd``: a teacher's blocks stand in for the student's in training, Interactive Knowledge Distillation (Fu et al., arXiv 2007.01476).

    L = CE(y, hybrid(x)),    hybrid block l = teacher's blocks with probability p(t), else the student's block,    drawn for each update

There is no distillation loss: what the teacher knows reaches the student through the blocks around its own. The swaps are the setting
``block_swap``, whose code is :mod:`kd_env.distillation.block_swap`; the rule itself is ``no_teacher``. So other policies can swap blocks
too, beside a distillation loss. The deviations, and what of the paper could be read, are in ``docs/systems/iakd.md``.
"""

from __future__ import annotations

from baselines.no_teacher import NoTeacher
from baselines.rule import RULE_OPTIONS
from kd_env.policies import Choice, SearchSpace


class IAKD(NoTeacher):
    """Cross-entropy on the hard labels of a network that mixes blocks of student and teacher."""

    access = "train labels"
    supports_population = False
    paper = "Fu et al. 2020, arXiv 2007.01476"
    env_options = {**RULE_OPTIONS, "action": "subset", "kd_weight": 0.0, "block_swap": "review"}
    search_space: SearchSpace = {
        "block_swap": Choice(("uniform(p=0.1)", "uniform(p=0.3)", "linear(start=0.5)", "linear(start=0.9)", "review(start=0.5)", "review"))
    }
