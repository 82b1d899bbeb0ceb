"""Attention and value relation: values worked out by hand."""

import math

import pytest
import torch
from comparing import loss_of, tensor

from kd_env.knowledge.attention import Attention

ROWS = [[0.25, 0.75], [0.5, 0.5]], [[0.5, 0.5], [1.0, 0.0]]  # student, teacher: KL .1438410 and ln 2
SAME = [[0.25, 0.75], [0.25, 0.75]], [[0.5, 0.5], [0.5, 0.5]]  # KL .1438410 = ln(4/3) / 2, twice


def test_attention_by_hand():
    student, teacher = ([[attention, values]] for attention, values in zip(ROWS, SAME, strict=True))
    assert loss_of(Attention(values=False), student, teacher) == pytest.approx([0.41849411])  # (.14384104 + .69314718) / 2
    assert loss_of(Attention(), student, teacher).tolist() == pytest.approx([0.56233515])  # and .14384104


def padded(rows, tokens=3):
    whole = torch.zeros(tokens, tokens, dtype=torch.float64)
    whole[:2, :2] = tensor(rows)
    return whole.tolist()


@pytest.mark.parametrize(("student_tokens", "teacher_tokens"), [(3, 3), (2, 5), (5, 2), (3, 4)])
def test_attention_skips_padding(student_tokens, teacher_tokens):
    student = [[padded(pair[0], student_tokens) for pair in (ROWS, SAME)]]
    teacher = [[padded(pair[1], teacher_tokens) for pair in (ROWS, SAME)]]
    assert loss_of(Attention(), student, teacher).tolist() == pytest.approx([0.56233515])


def test_attention_where_the_student_does_not_look_costs_the_floor():
    student, teacher = [[[[0.0, 1.0], [0.0, 1.0]]]], [[[[1.0, 0.0], [0.0, 1.0]]]]
    assert loss_of(Attention(values=False), student, teacher) == pytest.approx([10 * math.log(10)])  # -ln 1e-20 over two tokens
