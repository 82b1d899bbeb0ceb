"""The rows of a card's table of networks, and the scores over seeds."""

import re

from hand_made import runs

from kd_env.benchmark.card import _mean_score, network_row
from kd_env.teachers.own import as_pool


def test_a_teacher_needs_no_answers_for_test(own_task):
    unknown = set(own_task.test.inputs)

    def stored(texts):
        if not unknown.isdisjoint(texts):
            raise KeyError("no answer is stored")
        return [[float("bad" in text), float("good" in text)] for text in texts]

    assert network_row(as_pool("own", [stored], own_task).teachers[0], own_task) == ["stored", "–", "–", "–", "–"]


def test_an_interval_needs_three_seeds():
    scores = [_mean_score(runs("uniform", "nothing", 0.79, seeds), "test") for seeds in (1, 2, 3)]
    assert scores[:2] == ["0.790", "0.795 (2 seeds, no interval)"]
    assert re.fullmatch(r"0\.790 \[0\.\d{3}, 0\.\d{3}\]", scores[2])
