"""Encoded texts: which rows are cut, and evaluation in batches."""

import numpy as np
import torch

from kd_env.models.encode import TrimmedInputs, evaluate_in_batches, take
from kd_env.models.networks import build, reader

CPU = torch.device("cpu")


def test_what_is_taken_is_cut_to_its_longest_row(folders, own_task):
    read = reader(folders["bert"], own_task)(own_task.train.inputs)
    assert isinstance(read, TrimmedInputs)
    rows = np.argsort([len(text.split()) for text in own_task.train.inputs], kind="stable")[:4]
    batch = take(read, rows, CPU)
    longest = max(len(own_task.train.inputs[row].split()) for row in rows) + 2
    assert {tensor.shape for tensor in batch.values()} == {(4, longest)}
    network = build(folders["bert"], own_task, 0).eval()
    torch.testing.assert_close(network(**batch).logits, network(**{name: tensor[rows] for name, tensor in read.items()}).logits)


def test_texts_are_evaluated_with_others_of_their_length_and_answered_in_order(folders, own_task):
    read = reader(folders["bert"], own_task)(np.tile(own_task.train.inputs, 3))
    size, shapes = len(read["input_ids"]), []

    def run(rows):
        batch = take(read, rows[0], CPU)
        shapes.append(batch["input_ids"].shape)
        return batch["input_ids"].sum(1).view(1, -1, 1)

    assert torch.equal(evaluate_in_batches(run, read)[0, :, 0], read["input_ids"].sum(1))
    assert len(shapes) == 16
    assert sum(count for count, _ in shapes) == size
    assert shapes[0][1] < shapes[-1][1] == read["input_ids"].shape[1]
