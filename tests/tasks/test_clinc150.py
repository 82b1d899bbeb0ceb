"""CLINC150 from a folder of its files."""

import pytest

from kd_env import tasks
from kd_env.errors import InputError
from kd_env.tasks import clinc150
from kd_env.tasks.task import SPLITS
from kd_env.testing import check_task

INTENTS = [("translate", "travel"), ("book", "travel"), ("balance", "banking"), ("pay", "banking")]


@pytest.fixture
def folder(tmp_path):
    for part, count in (("train", 400), ("dev", 40), ("test", 60)):
        rows = [f"{part} query {i}\t{i % 4}\t{INTENTS[i % 4][0]}\t{INTENTS[i % 4][1]}" for i in range(count)]
        (tmp_path / f"{part}.tsv").write_text("\n".join(["sentence\tlabel\tintent\tdomain", *rows]) + "\n")
        (tmp_path / f"oos_{part}.tsv").write_text("sentence\tintent\nwhat is all this\toos\n")
    return tmp_path


def refusal(folder):
    with pytest.raises(InputError) as error:
        clinc150.load(str(folder))
    return str(error.value)


def test_classes_are_intents_in_the_order_of_their_numbers_and_groups_are_domains(folder):
    task = tasks.load("clinc150", str(folder))
    assert task.name == "clinc150"
    assert task.class_names == ("translate", "book", "balance", "pay")
    assert task.group_names == ("banking", "travel")
    assert {name: len(getattr(task, name)) for name in SPLITS} == {"train": 336, "reward": 64, "validation": 40, "test": 60}
    assert list(task.test.labels) == [i % 4 for i in range(60)]
    for name in SPLITS:
        split = getattr(task, name)
        assert (split.groups == (split.labels < 2)).all()
        assert "what is all this" not in split.inputs
    assert "out-of-scope queries (oos_*.tsv) are left out" in task.notes
    check_task(lambda: tasks.load("clinc150", str(folder)))


def test_a_missing_column_and_a_missing_file_are_named(folder):
    (folder / "dev.tsv").write_text("sentence\tlabel\nx\t1\n")
    assert f"{folder}/dev.tsv: no column 'intent', found sentence, label" in refusal(folder)
    (folder / "dev.tsv").unlink()
    assert f"{folder}/dev.tsv cannot be read (No such file or directory)" in refusal(folder)


def test_a_label_that_cannot_be_used_names_its_line(folder):
    train = (folder / "train.tsv").read_text()
    (folder / "train.tsv").write_text(train.replace("\t2\t", "\ttwo\t", 1))
    (folder / "dev.tsv").write_text("sentence\tlabel\tintent\tdomain\nx\t1\tfly\ttravel\n")
    assert f"{folder}/train.tsv, line 4: label 'two' is not the number of an intent; expected a whole number" in refusal(folder)
    (folder / "train.tsv").write_text(train)
    assert f"{folder}/dev.tsv, line 2: label 'fly' is not among those of the training file" in refusal(folder)
