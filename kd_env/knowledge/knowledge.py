"""What a knowledge type is: a target that a teacher sets, and the student's loss against it, one value an example."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Literal

from torch import Tensor

from kd_env.types import ModelOutput

Part = Literal["logits", "features", "layers", "attention"]
"""The parts of a :class:`~kd_env.types.ModelOutput` that a type may compare."""
EXTRA = {"layers": 3, "attention": 4}
"""Outputs that a bank keeps and a student computes only where a knowledge type needs them, with their number of axes. Attention, which is
large, is kept for the train split alone."""
Peers = Literal["", "each", "mean"]
"""Whom a type asks instead of the teachers: nobody, each of the other students of the population, or their mean prediction."""


class Knowledge(ABC):
    """A term of the loss that a policy may select.

    Attributes:
        needs: the part it compares. ``layers`` arrive cut to equally many: those of the shallower network, and of the deeper one as
            many, evenly spaced, the last among them.
        rowwise: an example's loss depends on its own row alone, and any leading axes are allowed: one call then serves all teachers. Other
            types are called once a teacher, with the B examples of one student's mini-batch.
        projects: the student's ``layers`` or ``features`` arrive mapped to the teacher's width by linear maps that are learned with the
            student.
        of_peers: it asks the other students of a population and no teacher; it compares ``logits`` then and is ``rowwise``.
        bends: of a type that projects ``features``: those maps are small networks instead.
    """

    needs: ClassVar[Part] = "logits"
    rowwise: ClassVar[bool] = False
    projects: ClassVar[bool] = False
    of_peers: ClassVar[Peers] = ""
    bends: ClassVar[bool] = False

    @property
    def reads_labels(self) -> bool:
        """Whether it reads ``student.labels``: then it is refused where labels are not part of the setting. A subclass may set it."""
        return False

    @property
    def grouped(self) -> bool:
        """Whether each teacher's last layer faces the last layer of a group of its own of the student's ``layers``."""
        return False

    @abstractmethod
    def target(self, teacher: ModelOutput) -> Tensor:
        """What the student is to match, batch first."""

    @abstractmethod
    def loss(self, student: ModelOutput, target: Tensor) -> Tensor:
        """Loss of each example, ``[B]``, at least 0."""
