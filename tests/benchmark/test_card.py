"""The rows of a card's table of networks."""

from kd_env.benchmark.card import network_row
from kd_env.teachers.own import as_pool


def test_a_teacher_needs_no_answers_for_test(own_task):
    unknown = set(own_task.test.inputs)

    def stored(texts):
        if not unknown.isdisjoint(texts):
            raise KeyError("no answer is stored")
        return [[float("bad" in text), float("good" in text)] for text in texts]

    assert network_row(as_pool("own", [stored], own_task).teachers[0], own_task) == ["stored", "–", "–", "–", "–"]
