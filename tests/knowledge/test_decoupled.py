"""Decoupled KD: values worked out by hand, and that the two parts are the response."""

import pytest
import torch
from comparing import draw, output_of, tensor

from kd_env.errors import InputError
from kd_env.knowledge import LossContext
from kd_env.knowledge.decoupled import NonTargetClass, TargetClass
from kd_env.knowledge.response import Response

P, Q = [1 / 2, 1 / 4, 1 / 4], [1 / 4, 1 / 4, 1 / 2]


@pytest.mark.parametrize("temperature", [1.0, 3.0])
@pytest.mark.parametrize(("label", "target_class", "non_target_class"), [(0, 0.14384104, 0.05889152), (1, 0.0, 0.23104906)])
def test_decoupled_by_hand(temperature, label, target_class, non_target_class):
    # true class 0: (1/2, 1/2) against (1/4, 3/4): ln(4/3) / 2; the others (1/2, 1/2) against (1/3, 2/3): ln(9/8) / 2
    # true class 1: (1/4, 3/4) against itself; the others (2/3, 1/3) against (1/3, 2/3): ln(2) / 3
    teacher, student = (temperature * tensor([probabilities]).log() + 0.3 for probabilities in (P, Q))
    context = LossContext(temperature, torch.tensor([label]))
    for kind, expected in ((TargetClass(), target_class), (NonTargetClass(), non_target_class)):
        losses = kind.loss_in_context(output_of(logits=student), teacher, context)
        assert losses.tolist() == pytest.approx([temperature**2 * expected], abs=1e-7)


def test_decoupled_around_the_teacher_s_own_class_reads_no_label():
    # teacher 0 is surest of class 0, teacher 1 (its classes reversed) of class 2: see the values for label 0 above, and
    # (1/2, 1/2) against itself, the others (1/2, 1/2) against (1/2, 1/2)
    teachers, student = tensor([[P, P[::-1]]]).log() + 0.3, tensor([[Q]]).log()
    output = output_of(logits=student)
    assert TargetClass("teacher").loss(output, teachers).flatten().tolist() == pytest.approx([0.14384104, 0.0], abs=1e-7)
    assert NonTargetClass("teacher").loss(output, teachers).flatten().tolist() == pytest.approx([0.05889152, 0.0], abs=1e-7)
    for kind in (TargetClass, NonTargetClass):
        assert kind().reads_labels
        assert not kind("teacher").reads_labels
        with pytest.raises(InputError, match="class_of='nobody': it must be one of label, teacher"):
            kind("nobody")


@pytest.mark.parametrize("scale", [0.1, 1.0, 30.0, 1e4])
@pytest.mark.parametrize("classes", [2, 3, 10])
def test_the_two_decoupled_parts_add_up_to_the_response(scale, classes):
    student, teacher, labels = scale * draw(20, classes), scale * draw(20, classes, seed=1), torch.arange(20) % classes
    output, context = output_of(logits=student), LossContext(2.5, labels)
    first, second = (kind.loss_in_context(output, teacher, context) for kind in (TargetClass(), NonTargetClass()))
    others = torch.stack([teacher[b, torch.arange(classes) != labels[b]] for b in range(20)])
    without = ((others / 2.5).logsumexp(1) - (teacher / 2.5).logsumexp(1)).exp()  # 1 - p_t
    torch.testing.assert_close(first + without * second, Response().loss_in_context(output, teacher, context), rtol=1e-9, atol=1e-9)
    if classes == 2:
        assert not second.any()
