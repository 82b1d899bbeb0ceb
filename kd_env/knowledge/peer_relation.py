"""``peer_relation``: each student matches the other students' relations between the examples of the mini-batch.

    mean_(j != s) (l_distance(s, j) + angle l_angle(s, j))

The two losses are those of :mod:`kd_env.knowledge.similarity` (RKD, Park et al. 2019, arXiv 1904.05068), between the features of the
student and of its peer j. This is the relational term of CTSL-MKT (Sun et al. 2021, arXiv 2101.08471), ``L_DD + beta_1 L_AD``.

Of the paper, the abstract and a summary with its formulas could be read, not the value of ``beta_1`` nor which vectors are related:
``angle`` is 2 by default, as in RKD, and the vectors are the features. Deviations: all students step at once, and the features of the peers
carry no gradient. A peer that sees other examples, or that has a feature which is not finite, does not teach.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from kd_env import spec
from kd_env.knowledge.context import LossContext
from kd_env.knowledge.knowledge import Output
from kd_env.knowledge.peers import PeerKnowledge, require_peers
from kd_env.knowledge.similarity import Similarity
from kd_env.types import Batch, ModelOutput

DISTANCE, ANGLE = Similarity("distance"), Similarity("angle")


@dataclass(frozen=True)
class PeerRelation(PeerKnowledge):
    """Match the distances and angles between examples of each other student of the population.

    Attributes:
        angle: weight of the angles; distances have weight 1.
    """

    compares: ClassVar[Output] = "features"

    angle: float = 2.0

    def __post_init__(self) -> None:
        """Check ``angle``."""
        spec.numbers("knowledge peer_relation", least=0, angle=self.angle)

    def target(self, teacher: ModelOutput) -> Tensor:
        """Return the features of the peer, ``[B, D]``."""
        return teacher.features

    def loss(self, student: ModelOutput, target: Tensor) -> Tensor:
        """Return the loss of each example against the features ``target [B, D]`` of one peer, ``[B]``."""
        distance = DISTANCE.loss(student, target)
        return distance + self.angle * ANGLE.loss(student, target) if self.angle else distance

    def losses(self, student: ModelOutput, batch: Batch, context: LossContext) -> Tensor:
        """Return the loss of each example against the other students, ``[rows, K]``; all K columns are equal.

        Raises:
            InputError: the population has only one student.
        """
        num_students = len(batch.update)
        require_peers({type(self).__name__: self}, num_students)
        ids = batch.example_ids.reshape(num_students, -1)
        outputs = [ModelOutput(*pair) for pair in zip(*(each.chunk(num_students) for each in student[:2]), strict=True)]
        peers = batch.student.features.detach().chunk(num_students)  # S x [B, D]
        finite = [bool(peer.isfinite().all()) for peer in peers]
        means = []
        for number, output in enumerate(outputs):
            taught = [
                self.loss(output, self.target(ModelOutput(peer, peer)))
                for other, peer in enumerate(peers)
                if other != number and finite[other] and (ids[other] == ids[number]).all()
            ]
            means.append(torch.stack(taught).mean(0) if taught else torch.zeros_like(output.logits[:, 0]))
        return torch.cat(means)[:, None].expand(-1, batch.teacher_logits.shape[1])
