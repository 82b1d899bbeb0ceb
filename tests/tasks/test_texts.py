"""Making a text task: where unlabelled texts go, and what its notes say."""

import numpy as np
import pytest
from text_data import write_texts

from kd_env.errors import InputError
from kd_env.tasks.tables import Table
from kd_env.tasks.text_files import load
from kd_env.tasks.texts import text_task
from kd_env.testing import check_task


@pytest.fixture
def folder(tmp_path):
    """40 labelled training texts and 200 texts without a label."""
    for name, count in (("train", 40), ("reward", 20), ("validation", 20), ("test", 20)):
        write_texts(tmp_path, name, count)
    write_texts(tmp_path, "unlabelled", 200, label=False)
    return tmp_path


@pytest.fixture
def grouped(tmp_path):
    for name, count in (("train", 40), ("reward", 20), ("validation", 20), ("test", 20)):
        write_texts(tmp_path, name, count, "ab")
    return tmp_path


def table(name, texts, labels, **more):
    columns = {"sentence": texts, "label": labels, **more}
    return Table(type("Path", (), {"name": f"{name}.tsv"})(), columns, list(range(2, 2 + len(texts))))


def test_classes_may_be_given_in_the_order_of_their_numbers():
    tables = {role: table(role, [f"{role} {i}" for i in range(8)], ["yes", "no"] * 4) for role in ("train", "reward", "validation", "test")}
    task = text_task("t", tables, "f1", ("yes", "no"), ["a note before"])
    assert (task.name, task.metric, task.class_names, task.kind) == ("t", "f1", ("yes", "no"), "text")
    assert task.train.labels.tolist() == [0, 1] * 4
    assert task.notes == (
        "a note before",
        "f1 is that of class 'no' (4 of 8 training examples), the second class; metric=f1(class=yes) is that of 'yes', "
        "f1_macro the mean of both",
        "validation has 8 examples, so an accuracy on it has a standard error of up to 0.177",
    )
    assert task.defaults.pool == "text/sizes"


def test_notes_are_in_order_given_columns_splits():
    texts = {role: [f"{role} {i}" for i in range(300)] for role in ("train", "dev")}
    tables = {role: table(role, rows, ["0", "1"] * 150, id=rows, group=["a", "b", "c"] * 100) for role, rows in texts.items()}
    task = text_task("t", tables, "accuracy", notes=["first"])
    assert task.notes == (
        "first",
        "columns not used: id",
        "test is dev.tsv, since there is no labelled test",
        "carved from train: reward 64, validation 64; left: 172",
        "validation has 64 examples, so an accuracy on it has a standard error of up to 0.062",
    )
    assert task.group_names == ("a", "b", "c")
    assert task.defaults.pool == "text/experts"


def test_carving_does_not_depend_on_the_unlabelled_texts(tmp_path):
    write_texts(tmp_path, "train", 300)
    write_texts(tmp_path, "unlabeled", 50, label=False)
    plain, more = load(str(tmp_path)), load(str(tmp_path), unlabelled=True)
    for name in ("reward", "validation", "test"):
        assert getattr(more, name).inputs.tolist() == getattr(plain, name).inputs.tolist()
    assert len(more.train) == len(plain.train) + 50


def test_unlabelled_texts_of_held_out_splits_are_left_out(folder):
    with (folder / "unlabelled.tsv").open("a") as file:
        file.write("TEST  3 fine\nvalidation 4 dull\nreward 5 fine\n")
    task = load(str(folder), unlabelled=True)
    assert len(task.train) == 240
    assert task.notes[1] == "3 of 203 unlabelled examples left out: they are also in test or validation or reward"
    write_texts(folder, "unlabelled", 20, label=False)
    (folder / "unlabelled.tsv").write_text((folder / "test.tsv").read_text())
    with pytest.raises(InputError, match=r"every example of unlabelled\.tsv is also in reward, validation or test; give it others"):
        load(str(folder), unlabelled=True)


def test_a_label_column_of_unlabelled_texts_is_not_read_and_a_note_says_so(folder):
    write_texts(folder, "unlabelled", 10)
    task = load(str(folder), unlabelled=True)
    assert task.train.labels[40:].tolist() == [-1] * 10
    assert task.notes[1] == "column label of unlabelled.tsv is not read"


def test_unlabelled_texts_have_their_group_or_none(grouped):
    write_texts(grouped, "unlabelled", 30, "b", label=False)
    known = load(str(grouped), unlabelled=True)
    assert known.train.groups[40:].tolist() == [1] * 30
    write_texts(grouped, "unlabelled", 30, label=False)
    unknown = load(str(grouped), unlabelled=True)
    assert unknown.train.groups[40:].tolist() == [-1] * 30
    assert unknown.group_names == ("a", "b")
    check_task(lambda: load(str(grouped), unlabelled=True))


def test_a_group_that_train_lacks_names_the_line(grouped):
    (grouped / "unlabelled.tsv").write_text("sentence\tgroup\none\ta\ntwo\tz\n")
    with pytest.raises(InputError, match=r"unlabelled\.tsv, line 3: group 'z' is not among those of the training file \(a, b\)"):
        load(str(grouped), unlabelled=True)


def test_the_tokenizer_reads_unlabelled_texts_too(folder):
    task = load(str(folder), unlabelled=True)
    assert set(task.tokenizer.texts) == set(task.train.inputs)
    assert np.isin([f"unlabelled {i} {('dull', 'fine')[i % 2]}" for i in range(200)], task.tokenizer.texts.astype(str)).all()
