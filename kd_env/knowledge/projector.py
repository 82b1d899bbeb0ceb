"""What a projector is: maps to each teacher's width that learn with a student (FitNets' regressors; Romero et al. 2015, arXiv 1412.6550).

In: a network and the teachers' shapes. Out: a network whose ``ModelOutput.projections`` holds the mapped outputs. Each projector stands
beside the knowledge type that it was written for; types that name the same one share its maps.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar, Literal

from torch import Tensor, nn

from kd_env.models.wrapper import NetworkWrapper
from kd_env.types import ModelOutput, TeacherShapes


class Projector(NetworkWrapper):
    """A network with a map to each teacher's width, left behind when the network is deployed.

    Attributes:
        name: its key in ``ModelOutput.projections``.
        projects: the output of the student that it maps.
    """

    name: ClassVar[str]
    projects: ClassVar[Literal["features", "layers"]]

    @abstractmethod
    def __init__(self, network: nn.Module, example: ModelOutput, teachers: TeacherShapes) -> None:
        """Draw the maps from torch's global generator.

        Args:
            network: the network to wrap.
            example: its output for one example, which shows its width and depth.
            teachers: the shapes to map to.
        """
        super().__init__(network)

    @abstractmethod
    def project(self, values: Tensor) -> tuple[Tensor, ...]:
        """Map the student's output ``[B, ..., D]`` to each teacher's width, K x ``[B, ..., D_k]``."""

    def extend(self, output: ModelOutput) -> ModelOutput:
        """Add the mapped outputs, where the student shows what is mapped."""
        values: Tensor | None = getattr(output, self.projects)
        if values is None:
            return output
        return output._replace(projections={**output.projections, self.name: self.project(values)})

    @classmethod
    def facing(cls, output: ModelOutput, k: int) -> ModelOutput:
        """Return the student's output with its mapped values for teacher ``k`` in place of the student's own."""
        mapped: dict[str, Any] = {cls.projects: output.projections[cls.name][k]}
        return output._replace(**mapped)
