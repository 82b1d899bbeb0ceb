"""Define the knowledge types: the terms of the loss that a policy may select, one file each, with the projectors that they need.

- ``knowledge``: the base class; ``context``: the temperature and labels that a loss may use.
- ``rowwise``, ``layer_knowledge``, ``map_knowledge``, ``peers``: base classes of types that compare logits of single examples, layers,
  feature maps, or other students.
- ``projector``, ``map_projector``: base classes of maps to the teachers' widths, of vectors and of feature maps.
- ``terms``: parses the setting ``knowledge``.
- ``label``: the hard label, the only term without teachers.
- ``check``: checks a knowledge type of your own.
"""

from kd_env.knowledge.attention import Attention
from kd_env.knowledge.attention_transfer import AttentionTransfer
from kd_env.knowledge.consistent import ConsistentSurrogate
from kd_env.knowledge.context import LossContext
from kd_env.knowledge.contrast import Contrast
from kd_env.knowledge.decoupled import NonTargetClass, TargetClass
from kd_env.knowledge.feature_ensemble import FeatureEnsemble
from kd_env.knowledge.hint import Hint
from kd_env.knowledge.knowledge import Knowledge
from kd_env.knowledge.layer import Layer
from kd_env.knowledge.map_ensemble import MapEnsemble
from kd_env.knowledge.map_hint import MapHint
from kd_env.knowledge.map_similarity import MapSimilarity
from kd_env.knowledge.peer_relation import PeerRelation
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
    "map_hint": MapHint,
    "attention_transfer": AttentionTransfer,
    "map_ensemble": MapEnsemble,
    "map_similarity": MapSimilarity,
    "tckd": TargetClass,
    "nckd": NonTargetClass,
    "contrast": Contrast,
    "peer": Peer,
    "peer_ensemble": PeerEnsemble,
    "peer_relation": PeerRelation,
}
"""Knowledge types by their name in the setting ``knowledge``. ``label`` is not in it: the loss contains it whenever kd_weight < 1."""
