"""What every projector does: where mapped outputs stand, and which stand in for the student's own."""

import torch
from torch import nn

from kd_env.knowledge.feature_ensemble import MLPProjector
from kd_env.knowledge.hint import LinearProjector
from kd_env.knowledge.projector import Projector
from kd_env.models.wrapper import unwrap
from kd_env.types import ModelOutput, TeacherShapes


class Echo(nn.Module):
    """Returns its input as features, twice as many as logits."""

    def forward(self, x):
        return ModelOutput(x[:, :1], x)


class Doubling(Projector):
    """A projector without maps: twice the features, for each teacher."""

    name, projects = "doubling", "features"

    def __init__(self, network, example, teachers):
        super().__init__(network, example, teachers)
        self.num_teachers = len(teachers.widths)

    def project(self, values):
        return tuple(2 * (k + 1) * values for k in range(self.num_teachers))


def test_projectors_around_each_other_keep_each_other_s_outputs():
    echo, teachers = Echo(), TeacherShapes((3, 2))
    example = echo(torch.ones(1, 2))
    network = MLPProjector(Doubling(LinearProjector(echo, example, teachers), example, teachers), example, teachers)
    output = network(x=torch.tensor([[1.0, 2.0]]))
    assert list(output.projections) == ["linear", "doubling", "mlp"]
    assert [mapped.tolist() for mapped in output.projections["doubling"]] == [[[2.0, 4.0]], [[4.0, 8.0]]]
    assert Doubling.for_teacher(output, 1).features.tolist() == [[4.0, 8.0]]
    assert LinearProjector.for_teacher(output, 0).features.shape == (1, 3)
    assert output.features.tolist() == [[1.0, 2.0]]
    assert unwrap(network) is echo
