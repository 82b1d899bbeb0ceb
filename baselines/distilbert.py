"""``distilbert``: DistilBERT-style (Sanh et al. 2019, arXiv 1910.01108), AKD's baseline of that name.

Response and the cosine of the features that the classifier reads: ``5 tau^2 KL + (1 - cos)``, over 5 so that the response keeps the
setting's kd_weight. ``1 - cos`` is half of ``hint(normalized=true)``, so that hint has strength 1/10.

Deviations: the paper distils while it pretrains, its third part is masked language modelling, and its student is initialised from the
teacher's layers; here it is the task, the hard label takes that part where the setting has labels, and the student is the setting's. Its
cosine is of every token's last hidden state and maps nothing, widths being equal; here it is of one vector a text, through a map that
learns with the student. 5 to 1 is the ratio of the training command that was published with the code; the paper names no weights [check].
"""

from __future__ import annotations

from baselines.rule import WEIGHTS
from baselines.uniform import Uniform


class DistilBERT(Uniform):
    """1/K, of responses and of the features' directions."""

    paper = "Sanh et al. 2019, arXiv 1910.01108"
    env_options = {**WEIGHTS, "knowledge": "response,hint(normalized=true,strength=0.1)"}
