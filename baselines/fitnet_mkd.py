"""``fitnet_mkd``: FitNet-MKD, a plain average of all teachers' responses and hints (as compared by Zhang et al. 2022, arXiv 2201.00007).

The hints are FitNets' (Romero et al. 2015, arXiv 1412.6550) at strength 100, with one map per teacher that learns with the student.
"""

from __future__ import annotations

from baselines.rule import WEIGHTS
from baselines.uniform import Uniform
from kd_env.policies import Choice, SearchSpace


class FitNetMKD(Uniform):
    """Weights of 1/K for responses and hints."""

    paper = "Romero et al. 2015, arXiv 1412.6550"
    env_options = {**WEIGHTS, "knowledge": "response,hint(strength=100)"}
    search_space: SearchSpace = {
        "knowledge": Choice(("response,hint(strength=100)", "response,hint(strength=10)", "response,hint(strength=1)")),
    }
