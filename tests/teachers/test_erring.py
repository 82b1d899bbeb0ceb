"""Errors of a known kind, as functions of the input."""

import numpy as np
import pytest
import torch

from kd_env.teachers.erring import Confusions, ErringTeacher, RandomErrors
from kd_env.types import ModelOutput

INPUTS = np.random.default_rng(0).random((4000, 1, 2, 2)).astype(np.float32)
LOGITS = torch.arange(5.0).repeat(len(INPUTS), 1)  # class 4 is the answer to all


class Constant:
    name = "constant"

    def fingerprint(self):
        return "constant"

    def __call__(self, inputs):
        return ModelOutput(LOGITS[: len(inputs)], torch.zeros(len(inputs), 3))


def test_a_random_error_moves_all_logits_on_by_a_number_of_classes():
    changed = RandomErrors(0.4).apply(INPUTS, LOGITS)
    shift = (changed.argmax(1) - 4) % 5
    assert all(torch.equal(row, LOGITS[0].roll(int(by))) for row, by in zip(changed[:50], shift[:50], strict=True))
    counts = np.bincount(shift, minlength=5) / len(INPUTS)
    assert counts[0] == pytest.approx(0.6, abs=0.03), "the rate counts errors that change the answer"
    assert counts[1:] == pytest.approx([0.1] * 4, abs=0.02), "each other class is as likely"


def test_random_errors_depend_on_the_input_and_the_seed_alone():
    errors = RandomErrors(0.5, seed=3)
    changed = errors.apply(INPUTS, LOGITS)
    order = np.random.default_rng(1).permutation(len(INPUTS))[:100]
    assert torch.equal(errors.apply(INPUTS[order], LOGITS[order]), changed[order])
    assert torch.equal(errors.apply(np.ascontiguousarray(INPUTS[5:6]), LOGITS[5:6]), changed[5:6])
    other = RandomErrors(0.5, seed=4).apply(INPUTS, LOGITS)
    right, also = ((values.argmax(1) == 4).double() for values in (changed, other))
    assert abs(float(torch.corrcoef(torch.stack([right, also]))[0, 1])) < 0.05


def test_random_errors_of_texts_depend_on_the_text():
    texts = np.array(["a text", "another", "a text"] * 20, dtype=object)
    changed = RandomErrors(0.5, seed=1).apply(texts, LOGITS[:60])
    assert torch.equal(changed[0], changed[2])
    many = RandomErrors(0.5).apply(np.array([f"text {n}" for n in range(1000)], dtype=object), LOGITS[:1000])
    assert float((many.argmax(1) == 4).double().mean()) == pytest.approx(0.5, abs=0.06)


@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_no_error_and_only_errors(rate):
    changed = RandomErrors(rate).apply(INPUTS, LOGITS)
    assert set((changed.argmax(1) == 4).tolist()) == {rate == 0.0}


def test_a_confused_class_gives_its_probability_to_the_other():
    logits = torch.tensor([[0.0, 1.0, 2.0, 3.0]])
    changed = Confusions(((3, 1),)).apply(INPUTS[:1], logits)
    assert changed.argmax(1).tolist() == [1]
    exp = logits.exp()[0].tolist()
    assert changed.exp()[0].tolist() == pytest.approx([exp[0], exp[1] + exp[3], exp[2], exp[0]])
    assert logits.tolist() == [[0.0, 1.0, 2.0, 3.0]], "the other teacher's logits stay"


def test_an_erring_teacher_shows_nothing_but_its_own_answers():
    teacher = ErringTeacher(Constant(), RandomErrors(0.5), 5)
    output = teacher(INPUTS[:20])
    weight, bias = teacher.head()
    assert torch.equal(output.features @ weight.T + bias, output.logits)
    assert output.layers is None
    assert output.attention is None
    assert teacher.name == "constant"


def test_the_fingerprint_follows_teacher_and_errors():
    of = {
        ErringTeacher(Constant(), errors, 5).fingerprint()
        for errors in (RandomErrors(0.5), RandomErrors(0.5, 1), RandomErrors(0.4), Confusions(((1, 2),)))
    }
    assert len(of) == 4
    assert ErringTeacher(Constant(), RandomErrors(0.5), 5).fingerprint() in of
