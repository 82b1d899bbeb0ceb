"""Knowledge: ``bank`` holds what teachers say about every example; each other file is one knowledge type, a term of the loss.

``knowledge`` says what a type is, ``terms`` reads them from a setting and asks them for their losses. ``label``, the hard label, is the one
term that asks no teacher.
"""

from kd_env.knowledge.attention import Attention
from kd_env.knowledge.consistent import ConsistentSurrogate
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

__all__ = ["KNOWLEDGE", "Knowledge"]

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
"""What teachers, or peers, can be asked for, by the name that the ``knowledge`` setting uses; ``label`` is there by itself, below strength
1."""
