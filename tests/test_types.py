"""The values that pass from one stage to the next: the part of a batch that belongs to one student."""

from dataclasses import fields

import numpy as np
import torch

from kd_env.types import Batch, Decision, ModelOutput

STUDENTS, SIZE = 3, 2
ROWS = STUDENTS * SIZE


def rows(*shape):
    """A tensor whose first number in each row is the row."""
    return torch.arange(ROWS, dtype=torch.float32).view(-1, *[1] * len(shape)).expand(ROWS, *shape)


def test_the_batch_of_a_student_has_its_rows_of_every_field():
    batch = Batch(
        update=np.arange(STUDENTS),
        progress=np.arange(STUDENTS) / 10,
        example_ids=np.arange(ROWS),
        labels=rows(),
        teacher_logits=rows(4, 5),
        teacher_features=(rows(7), rows(8)),
        student=ModelOutput(rows(5), rows(6)),
        teacher_layers=(rows(2, 7), rows(3, 8)),
        teacher_attention=(rows(2, 3, 3),),
    )
    part = batch.of_student(1)
    assert (part.update.tolist(), part.progress.tolist()) == ([1], [0.1])
    for name in {field.name for field in fields(Batch)} - {"update", "progress"}:
        value, whole = getattr(part, name), getattr(batch, name)
        assert type(value) is type(whole)
        for values in value if isinstance(value, tuple) else (value,):
            if isinstance(values, torch.Tensor | np.ndarray):
                assert values.reshape(SIZE, -1)[:, 0].tolist() == [2, 3], name
    assert part.student.layers is None
    assert [tensor.shape for tensor in part.teacher_layers] == [(SIZE, 2, 7), (SIZE, 3, 8)]


def test_all_tensors_of_a_decision_move_to_a_device_and_numbers_stay():
    numbers = torch.ones(ROWS)
    decision = Decision({"response": rows(4)}, {"response": numbers, "label": 0.5}, numbers, numbers).to(torch.device("meta"))
    tensors = [decision.weights["response"], decision.strengths["response"], decision.temperature, decision.penalty]
    assert [tensor.device.type for tensor in tensors] == ["meta"] * 4
    assert decision.strengths["label"] == 0.5
