"""Which class of a checkpoint is which class of the task: by name, by its beginning, by a mapping, by validation."""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch

from kd_env.cli import invoke
from kd_env.errors import InputError
from kd_env.teachers import load_pool
from kd_env.teachers.checkpoint import CheckpointTeacher
from kd_env.teachers.classes import MASKED, ClassMap, match_by_validation, match_classes, parse_mapping
from kd_env.teachers.teacher import Pool, classifiers


def matched(task, *names, **mapping):
    return match_classes("it", dict(enumerate(names)), task, mapping or None)


def test_names_are_compared_and_what_else_was_assumed_is_noted(own_task):
    assert matched(own_task, "Pos", "NEG") == ClassMap(((1,), (0,)))
    assert matched(own_task, "NEGATIVE", "POSITIVE") == ClassMap(
        ((0,), (1,)), ("matched by the beginning of their names: NEGATIVE is neg, POSITIVE is pos",)
    )
    assert matched(own_task, "neg", "neutral", "pos") == ClassMap(
        ((0,), (2,)), ("its classes that the task does not have are left out: neutral",)
    )
    three = dataclasses.replace(own_task, class_names=("neg", "pos", "mixed"))
    assert matched(three, "pos", "neg") == ClassMap(((1,), (0,), ()), ("it lacks classes of the task, which it never answers: mixed",))
    assert matched(own_task, "LABEL_0", "LABEL_1") == ClassMap(((0,), (1,)), assumed=True)


def test_classes_that_differ_in_case_alone_are_matched_by_their_exact_names(own_task):
    two, four = (dataclasses.replace(own_task, class_names=names) for names in (("Spam", "spam"), ("A", "a", "b", "c")))
    assert matched(two, "spam", "Spam") == ClassMap(((1,), (0,)))
    assert matched(two, "spam", "Spam", spam="spam", Spam="Spam").columns == ((1,), (0,))
    assert matched(two, "spam", "Spam", spam="Spam", Spam="spam").columns == ((0,), (1,))
    assert matched(four, "c", "a", "A", "b") == ClassMap(((2,), (1,), (3,), (0,)))
    assert matched(four, "a", "A", "b").columns == ((1,), (0,), (2,), ())


def test_equal_names_are_matched_also_if_they_are_numbered(own_task):
    names = sorted(f"LABEL_{number}" for number in range(12))  # LABEL_10 comes before LABEL_2
    twelve = dataclasses.replace(own_task, class_names=tuple(names))
    teacher = matched(twelve, *(f"LABEL_{number}" for number in range(12)))
    assert teacher == ClassMap(tuple((int(name.removeprefix("LABEL_")),) for name in names))


def test_a_mapping_says_the_rest_and_joins_classes(own_task):
    stars = matched(own_task, "1 star", "2 stars", "3 stars", "4 stars", **{"1 star": "neg", "2 Stars": "neg", "4 stars": "pos"})
    assert stars.columns == ((0, 1), (3,))
    assert stars.notes == ("its classes that the task does not have are left out: 3 stars", "joined: 1 star and 2 stars to neg")
    logits = torch.tensor([[1.0, 2.0, 9.0, 3.0]])
    expected = torch.tensor([[math.log(math.e + math.e**2), 3.0]])
    torch.testing.assert_close(stars.logits(logits), expected)
    assert matched(own_task, "LABEL_0", "LABEL_1", LABEL_0="pos", LABEL_1="neg").columns == ((1,), (0,))
    assert matched(own_task, "neg", "pos", "neutral", neutral="").columns == ((0,), (1,))


@pytest.mark.parametrize(
    ("names", "mapping", "message"),
    [
        (("good", "bad"), {}, r"has the classes 2: good, bad, task '.*' has 2: neg, pos; .*PATH\(classes=good=neg;bad=pos\)"),
        (("neg", "neutral"), {}, "has the classes 2: neg, neutral"),
        (("nega", "negb", "pos"), {}, "has the classes 3: nega, negb, pos"),
        (("neg", "neg"), {}, "checkpoint 'it' has two classes of the name 'neg'; change id2label in its config.json"),
        (("LABEL_0", "LABEL_1", "LABEL_2"), {}, "has the classes 3: LABEL_0"),
        (("good", "bad"), {"god": "neg"}, "unknown class of checkpoint 'it' 'god'; did you mean 'good'"),
        (("good", "bad"), {"good": "positive"}, "for 'good' of checkpoint 'it' 'positive'; known: neg, pos"),
        (("good", "bad"), {"good": "pos"}, "give a teacher of the same classes"),
    ],
)
def test_what_does_not_match_is_refused_with_what_to_write(names, mapping, message, own_task):
    with pytest.raises(InputError, match=message):
        matched(own_task, *names, **mapping)


def test_a_mapping_is_read_from_text():
    assert parse_mapping("p", "1 star=neg; 5 stars = pos;neutral=") == {"1 star": "neg", "5 stars": "pos", "neutral": ""}
    with pytest.raises(InputError, match="p: 'NEGATIVE' is not a pair; write classes=THEIRS=YOURS;THEIRS=YOURS"):
        parse_mapping("p", "NEGATIVE")
    with pytest.raises(InputError, match="p: class 'a' is given twice"):
        parse_mapping("p", "a=b;a=c")


IDENTITY = ClassMap(((0,), (1,), (2,)), assumed=True)


def answers(labels, accuracy, order, seed=0):
    """Logits of a teacher that is right in ``accuracy`` of all cases and whose class ``order[c]`` is class ``c``."""
    rng = np.random.default_rng(seed)
    right = np.where(rng.random(len(labels)) < accuracy, labels, rng.integers(len(order), size=len(labels)))
    return np.eye(len(order))[np.asarray(order)[right]]


@pytest.mark.parametrize(
    ("size", "accuracy", "order", "columns"),
    [
        (64, 0.9, (2, 0, 1), (2, 0, 1)),
        (1000, 0.6, (1, 2, 0), (1, 2, 0)),
        (64, 0.9, (0, 1, 2), (0, 1, 2)),
        (64, 0.0, (2, 0, 1), (0, 1, 2)),
        (1000, 0.0, (2, 0, 1), (0, 1, 2)),
    ],
    ids=["another order", "a weak teacher, many examples", "the task's order", "no teacher", "no teacher, many examples"],
)
def test_classes_without_names_are_matched_by_validation_where_it_is_clear(size, accuracy, order, columns):
    labels = np.arange(size) % 3
    result = match_by_validation(IDENTITY, answers(labels, accuracy, order), labels, 3)
    assert result.columns == tuple((number,) for number in columns)
    assert ("matched by what validation says" if columns != (0, 1, 2) else "are assumed to be in the task's order") in result.notes[0]


def test_a_good_teacher_in_another_order_is_found_and_this_is_cached(make_checkpoint, own_task, tmp_path, monkeypatch):
    folder = make_checkpoint(tmp_path / "swapped", labels=("LABEL_0", "LABEL_1"))
    labels = own_task.validation.labels
    assert CheckpointTeacher(str(folder), own_task).notes[0].startswith("its classes LABEL_0 to LABEL_1 are assumed to be in the task's")
    other = dataclasses.replace(own_task, reward=own_task.validation)  # another content, which is not cached yet
    teacher = CheckpointTeacher(str(folder), other)
    output = teacher._own_outputs(own_task.validation.inputs, frozenset())
    logits = torch.from_numpy(np.eye(2, dtype=np.float32)[1 - labels])
    monkeypatch.setattr(CheckpointTeacher, "_own_outputs", lambda *_: output._replace(logits=logits))
    assert "matched by what validation says: 1.000 instead of 0.000" in teacher.notes[0]
    assert teacher(own_task.validation.inputs).logits.argmax(1).tolist() == labels.tolist()
    monkeypatch.setattr(CheckpointTeacher, "_own_outputs", lambda *_: pytest.fail("run again"))
    assert CheckpointTeacher(str(folder), other).notes == teacher.notes


def test_masked_and_left_out_classes_in_logits_and_head(make_checkpoint, own_task, tmp_path):
    folder = make_checkpoint(tmp_path / "two", labels=("pos", "neg", "other"))
    task = dataclasses.replace(own_task, class_names=("neg", "mixed", "pos"))
    teacher = CheckpointTeacher(str(folder), task)
    output = teacher(own_task.train.inputs[:8])
    own = teacher._own_outputs(own_task.train.inputs[:8], frozenset()).logits
    assert (output.logits[:, 1] == MASKED).all()
    assert output.logits[:, [0, 2]].tolist() == own[:, [1, 0]].tolist()
    ((weight, bias),) = classifiers(Pool("p", (teacher,)))
    torch.testing.assert_close(output.features @ weight.T + bias, output.logits, atol=1e-5, rtol=1e-4)
    assert output.logits.half().isfinite().all()


def test_a_mapping_on_the_command_line_and_in_a_pool_file(make_checkpoint, own_data, own_task, tmp_path, capsys, monkeypatch):
    folder = make_checkpoint(tmp_path / "stars", labels=("1 star", "2 stars", "3 stars"))
    task, text = f"folder:{own_data}", f"{folder}(classes=1 star=neg;2 stars=neg;3 stars=pos)"
    assert invoke(["bank", "--task", task, "--teachers", text, "--out", f"{tmp_path}/a", "--quiet"]) == 0
    line = capsys.readouterr().out.splitlines()
    assert line[0].startswith(f"bank {tmp_path}/a: stars; fingerprint ")
    assert "  note on stars: joined: 1 star and 2 stars to neg" in line
    (tmp_path / "pool.toml").write_text(
        f'[[teachers]]\nname = "mine"\nmodel = "{folder}"\nclasses = {{"1 star" = "neg", "2 stars" = "neg", "3 stars" = "pos"}}\n'
    )
    for teachers in (f"{tmp_path}/pool.toml", f"{tmp_path}/pool"):
        assert invoke(["teach", "--task", task, "--pool", f"{tmp_path}/pool.toml", "--out", f"{tmp_path}/pool", "--quiet"]) == 0
        (teacher,) = load_pool(teachers, own_task).teachers
        assert teacher.name == "mine"
        (same,) = load_pool(text, own_task).teachers
        assert teacher.fingerprint() == same.fingerprint()


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ('classes = ["neg"]', "teacher 1: classes=['neg'], expected a mapping as {NEGATIVE = \"neg\"}"),
        (
            'classes = {neg = "neg"}\nepochs = 3',
            "teacher 1: epochs says how a model is trained, and one with classes is not; leave out epochs",
        ),
        ('classes = {god = "neg"}', "unknown class of checkpoint"),
    ],
)
def test_a_mapping_in_a_pool_file_that_cannot_be_used_is_refused(table, message, make_checkpoint, own_data, tmp_path, capsys):
    folder = make_checkpoint(tmp_path / "stars", labels=("good", "bad"))
    (tmp_path / "pool.toml").write_text(f'[[teachers]]\nname = "mine"\nmodel = "{folder}"\n{table}\n')
    options = ["--task", f"folder:{own_data}", "--pool", f"{tmp_path}/pool.toml", "--out", f"{tmp_path}/pool", "--quiet"]
    assert invoke(["teach", *options]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"problem_type": "multi_label_classification"}, "problem_type is multi_label_classification: it answers yes or no for each class"),
        ({"problem_type": "regression"}, "it gives numbers, not classes"),
        ({"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}, "it gives numbers, not classes"),
    ],
)
def test_checkpoints_that_do_not_give_one_class_are_refused_by_name(change, message, make_checkpoint, own_task, tmp_path):
    folder = make_checkpoint(tmp_path / "bad")
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(InputError, match=message):
        CheckpointTeacher(str(folder), own_task)
