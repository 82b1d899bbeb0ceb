"""Knowledge types: the terms of the loss that a policy may select, one file each, with the projectors they need.

``knowledge`` says what a type is, and ``context`` what its loss may depend on. ``rowwise``, ``layer_knowledge`` and ``peers`` hold bases
for types that compare one example's logits, layers, or other students; ``projector`` is the base of maps to the teachers' widths. ``terms``
parses the ``knowledge`` setting. ``label``, the hard label, is the one term that asks no teacher.
"""

from kd_env.knowledge.attention import Attention
from kd_env.knowledge.consistent import ConsistentSurrogate
from kd_env.knowledge.context import LossContext
from kd_env.knowledge.contrast import Contrast
from kd_env.knowledge.decoupled import NonTargetClass, TargetClass
from kd_env.knowledge.feature_ensemble import FeatureEnsemble
from kd_env.knowledge.hint import Hint
from kd_env.knowledge.knowledge import Knowledge
from kd_env.knowledge.layer import Layer
from kd_env.knowledge.peers import Peer, PeerEnsemble
from kd_env.knowledge.prior import PriorSurrogate
from kd_env.knowledge.relation import Relation
from kd_env.knowledge.response import Response
from kd_env.knowledge.similarity import Similarity

__all__ = ["KNOWLEDGE", "Knowledge", "LossContext"]

KNOWLEDGE: dict[str, type[Knowledge]] = {
    "response": Response,
    "layer": Layer,
    "hint": Hint,
    "feature_ensemble": FeatureEnsemble,
    "consistent_surrogate": ConsistentSurrogate,
    "prior_surrogate": PriorSurrogate,
    "relation": Relation,
    "similarity": Similarity,
    "attention": Attention,
    "tckd": TargetClass,
    "nckd": NonTargetClass,
    "contrast": Contrast,
    "peer": Peer,
    "peer_ensemble": PeerEnsemble,
}
"""Knowledge types by their name in the ``knowledge`` setting; ``label`` is not named there: it is part of the loss where kd_weight < 1."""
