"""Decisions of several policies as one: legal ones are joined, others are refused with what to do."""

import pytest
import torch

from kd_env.envs.decisions import concatenate
from kd_env.errors import InputError
from kd_env.types import Decision

WEIGHTS = {"response": torch.full((3, 4), 0.25)}


def test_decisions_without_weights_are_joined():
    both = concatenate([Decision({}, {"label": 0.5}, 2.0), Decision({}, {"label": 0.75}, 2.0)], 3)
    assert both.weights == {}
    assert both.strengths["label"].tolist() == [0.5] * 3 + [0.75] * 3
    assert both.temperature == 2.0


def test_a_penalty_of_some_decisions_is_refused():
    first, second = Decision(WEIGHTS, {"response": 1.0}, 2.0, torch.zeros(3)), Decision(WEIGHTS, {"response": 1.0}, 2.0)
    with pytest.raises(InputError, match="give all of them a penalty, or none"):
        concatenate([first, second], 3)
