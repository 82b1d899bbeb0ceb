"""What is said about teachers: their scores, those below chance, one answer to all, and texts that are cut."""

import dataclasses

import numpy as np
import pytest

from kd_env.bank.assumptions import cut_lines, teacher_lines
from kd_env.bank.bank import open_bank
from kd_env.cli import invoke
from kd_env.models.encode import count_cut
from kd_env.models.networks import build
from kd_env.tasks import Split
from kd_env.teachers import NetworkTeacher, Pool
from kd_env.teachers.own import as_pool


def answering(task, function, name="t"):
    """A pool of one teacher that answers the class ``function(label)``."""
    label_of = {text: label for name in ("train", "reward", "validation") for text, label in zip(*_columns(task, name), strict=True)}
    call = lambda texts: 3.0 * np.eye(task.num_classes)[[function(label_of[text]) for text in texts]]  # noqa: E731
    call.__name__ = name
    return as_pool("own", [call], task)


def _columns(task, name):
    split = getattr(task, name)
    return split.inputs.tolist(), split.labels.tolist()


@pytest.mark.parametrize(
    ("answer", "score", "note"),
    [
        (lambda label: label, "1.000", None),
        (
            lambda label: 1 - label,
            "0.000",
            "it is below chance: validation accuracy 0.000, and 0.500 by guessing; are its classes in the right",
        ),
        (lambda label: 0, None, "it answers 'neg' to every validation example"),
    ],
    ids=["right", "swapped", "one answer"],
)
def test_a_teacher_is_said_to_score_and_what_is_wrong_with_it(answer, score, note, own_task, tmp_path):
    pool = answering(own_task, answer)
    first, *notes = teacher_lines(own_task, pool, open_bank(own_task, pool, tmp_path / "bank"))
    assert first.startswith("  t: validation accuracy ")
    assert score is None or first.endswith(score)
    assert bool(notes) == (note is not None)
    assert note is None or notes[0].startswith(f"  note on t: {note}")


def test_a_teacher_below_the_most_frequent_class_is_named(own_task, tmp_path):
    labels = np.r_[np.zeros(60, dtype=np.int64), np.ones(4, dtype=np.int64)]
    task = dataclasses.replace(own_task, validation=Split(own_task.validation.inputs[:64], labels))
    half = {text: row % 2 for row, text in enumerate(task.validation.inputs)}
    pool = as_pool("own", [lambda texts: np.eye(2)[[half.get(text, 0) for text in texts]] * 2], task)
    lines = teacher_lines(task, pool, open_bank(task, pool, tmp_path / "bank"))
    assert lines[1] == "  note on function: validation accuracy 0.500 is below 0.938, that of always answering 'neg'"


def with_long_texts(task, count):
    inputs = task.train.inputs.copy()
    inputs[:count] = [f"{text} {'good ' * 200}" for text in inputs[:count]]
    return dataclasses.replace(task, train=Split(inputs, task.train.labels, task.train.groups))


def test_texts_that_are_cut_are_counted_for_each_way_of_reading(own_task, make_checkpoint, tmp_path):
    task = with_long_texts(own_task, 17)
    pool = Pool("p", (NetworkTeacher("n", build("tiny-bert(width=8,layers=1)", task, 0), task),))
    line = f"  built-in models: 17 of {len(task.train):,} training texts are cut at 128 tokens; --max-length 256 reads more"
    assert cut_lines(task, pool) == [line]
    assert cut_lines(own_task, pool) == []
    student = str(make_checkpoint(tmp_path / "student"))
    assert cut_lines(task, pool, student) == [
        line,
        f"  student {student}: 17 of {len(task.train):,} training texts are cut at 32 tokens; --max-length 64 reads more",
    ]


def test_of_very_many_texts_the_number_is_estimated(own_task, monkeypatch):
    monkeypatch.setattr("kd_env.models.encode.COUNTED", 20)
    texts = np.array(["good " * 300, "bad " * 50] * 100, dtype=object)
    count, exact = count_cut(own_task.tokenizer(), texts, 128)
    assert not exact
    assert 60 <= count <= 140
    pairs = np.array([["good " * 100, "bad " * 100]] * 3, dtype=object)
    assert count_cut(own_task.tokenizer(), pairs, 128) == (3, True)


@pytest.mark.long
def test_every_run_prints_its_teachers_scores(own_data, make_checkpoint, tmp_path, capsys):
    folder = make_checkpoint(tmp_path / "t", labels=("LABEL_0", "LABEL_1"))
    options = ["--task", f"folder:{own_data}", "--teachers", str(folder), "--student", "tiny-bert(width=8,layers=1)"]
    assert (
        invoke(["run", *options, "--policy", "uniform", "--seeds", "0", "--updates", "2", "--workers", "1", "--out", f"{tmp_path}/out"])
        == 0
    )
    error = capsys.readouterr().err
    assert "  t: validation accuracy 0." in error
    assert "  note on t: its classes LABEL_0 to LABEL_1 are assumed to be in the task's order (validation accuracy 0." in error
