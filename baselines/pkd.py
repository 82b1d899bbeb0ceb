"""``pkd``: patient knowledge distillation (Sun et al. 2019, arXiv 1908.09355), AKD's baseline of that name.

Hard label (where it is used), response, and the directions of the layers' [CLS] (``layer(normalized=true)``). The setting's
kd_weight divides them between teachers and label.

Deviations: the paper has one teacher; here all have equal weights. It searches the strengths of the three parts and the temperature; here
they are the setting's, and that of the layers is 1 (``--set knowledge="response,layer(normalized=true,strength=10)"``).
``kd_env.knowledge.layer`` says how layers are paired and mapped.
"""

from __future__ import annotations

from baselines.rule import WEIGHTS
from baselines.uniform import Uniform
from kd_env.policies import Choice, SearchSpace


class PKD(Uniform):
    """Weights of 1/K for responses and the layers' directions."""

    paper = "Sun et al. 2019, arXiv 1908.09355"
    env_options = {**WEIGHTS, "knowledge": "response,layer(normalized=true)"}
    search_space: SearchSpace = {
        "knowledge": Choice(("response,layer(normalized=true)", "response,layer(normalized=true,strength=0.1)")),
    }
