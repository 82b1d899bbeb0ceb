"""Define the base class of projectors: maps to each teacher's width that learn with a student.

They are the regressors of FitNets (Romero et al. 2015, arXiv 1412.6550). In: a network and the teachers' shapes. Out: a network that adds
the mapped outputs to ``ModelOutput.projections``. Each projector is in the file of the knowledge type that uses it. Types with the same
projector share its maps.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar, Literal

from torch import Tensor, nn

from kd_env.models.wrapper import NetworkWrapper
from kd_env.types import ModelOutput, TeacherShapes


class Projector(NetworkWrapper):
    """A network with a map to each teacher's width. The maps are removed when the network is deployed.

    Attributes:
        name: key of the mapped output in ``ModelOutput.projections``.
        projects: output of the student that is mapped.
    """

    name: ClassVar[str]
    projects: ClassVar[Literal["features", "layers", "maps"]]

    @abstractmethod
    def __init__(self, network: nn.Module, example: ModelOutput, teachers: TeacherShapes) -> None:
        """Draw the maps from torch's global generator.

        Args:
            network: network to wrap.
            example: output of the network for one example, which gives its width and depth.
            teachers: shapes of the teachers' outputs.
        """
        super().__init__(network)

    @abstractmethod
    def project(self, values: Tensor) -> tuple[Tensor, ...]:
        """Return the student's output mapped to each teacher's width, such as ``[B, ..., D]`` to K x ``[B, ..., D_k]``."""

    def extend(self, output: ModelOutput) -> ModelOutput:
        """Return the output with the mapped outputs added, if the student computed the output that is mapped."""
        values: Tensor | None = getattr(output, self.projects)
        if values is None:
            return output
        return output._replace(projections={**output.projections, self.name: self.project(values)})

    @classmethod
    def for_teacher(cls, output: ModelOutput, k: int) -> ModelOutput:
        """Return the student's output with the values mapped for teacher ``k`` in place of the original values."""
        mapped: dict[str, Any] = {cls.projects: output.projections[cls.name][k]}
        return output._replace(**mapped)
