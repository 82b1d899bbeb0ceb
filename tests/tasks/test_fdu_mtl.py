"""FDU-MTL from a folder of a folder for each domain."""

import numpy as np
import pytest

from kd_env import tasks
from kd_env.errors import InputError
from kd_env.tasks import fdu_mtl
from kd_env.tasks.task import SPLITS
from kd_env.testing import check_task


@pytest.fixture
def folder(tmp_path):
    for domain in ("books", "dvd", "MR"):
        (tmp_path / domain).mkdir()
        for part, count in (("train", 300), ("dev", 30), ("test", 40)):
            rows = [f"{domain} {part} {i}\t{i % 2}" for i in range(count)]
            (tmp_path / domain / f"{part}.tsv").write_text("\n".join(["sentence\tlabel", *rows]) + "\n")
    return tmp_path


def refusal(folder):
    with pytest.raises(InputError) as error:
        fdu_mtl.load(str(folder))
    return str(error.value)


def test_groups_are_domains(folder):
    task = tasks.load("fdu-mtl", str(folder))
    assert task.group_names == ("MR", "books", "dvd")
    assert task.class_names == ("negative", "positive")
    assert {name: len(getattr(task, name)) for name in SPLITS} == {"train": 810, "reward": 90, "validation": 90, "test": 120}
    for name in SPLITS:
        split = getattr(task, name)
        for text, label, group in zip(split.inputs, split.labels, split.groups, strict=True):
            domain, _, number = text.split()
            assert (task.group_names[group], int(number) % 2) == (domain, label)
    assert (np.bincount(task.reward.groups) == 30).all(), "carving is stratified by domain"
    check_task(lambda: tasks.load("fdu-mtl", str(folder)))


def test_listed_rows_of_train_and_dev_are_left_out_and_no_others(folder):
    (folder / "overlap_rows.tsv").write_text(
        "domain\tsplit\trow\tsame_text_as\nbooks\ttrain\t0\ttest:1\nbooks\ttrain\t7\ttest:2\ndvd\tdev\t5\ttest:3\ndvd\ttest\t9\ttest:4\n"
    )
    (folder / "MR" / "train.tsv").write_text((folder / "MR" / "train.tsv").read_text() + " \t1\n")
    task = fdu_mtl.load(str(folder))
    texts = {name: set(getattr(task, name).inputs) for name in SPLITS}
    everything = set.union(*texts.values())
    assert {"books train 0", "books train 7", "dvd dev 5"}.isdisjoint(everything)
    assert {"books train 1", "books train 8", "dvd dev 4", "dvd train 0"} <= everything
    assert "dvd test 9" in texts["test"]
    assert len(everything) == 900 - 2 + 90 - 1 + 120
    assert task.notes[:3] == (
        "2 train examples left out: overlap_rows.tsv lists them",
        "1 train examples left out: they have no text",
        "1 dev examples left out: overlap_rows.tsv lists them",
    )


def test_what_is_wrong_with_the_list_of_rows_is_named(folder):
    (folder / "overlap_rows.tsv").write_text("domain\tsplit\trow\nbooks\ttrain\tfirst\n")
    assert f"{folder}/overlap_rows.tsv, line 2: row 'first' is not a number; expected a whole number" in refusal(folder)
    (folder / "overlap_rows.tsv").write_text("domain\trow\nbooks\t1\n")
    assert f"{folder}/overlap_rows.tsv: no column 'split', found domain, row" in refusal(folder)


def test_another_label_and_another_folder_are_named(folder):
    (folder / "dvd" / "dev.tsv").write_text("sentence\tlabel\nx\t2\n")
    assert f"{folder}/dvd/dev.tsv, line 2: label '2', expected 0 (negative) or 1 (positive)" in refusal(folder)
    assert "0 folders with a train.tsv; expected the folders of FDU-MTL, one for each of its domains" in refusal(folder / "dvd")


def test_unlabelled_reviews_are_added_to_train_with_their_domain(tmp_path):
    for domain in ("books", "dvd"):
        (tmp_path / domain).mkdir()
        for part, count in (("train", 150), ("dev", 20), ("test", 20)):
            lines = [f"{domain} {part} {i}\t{i % 2}" for i in range(count)]
            (tmp_path / domain / f"{part}.tsv").write_text("\n".join(["sentence\tlabel", *lines]) + "\n")
        lines = [f"{domain} more {i}" for i in range(60)]
        (tmp_path / domain / "unlabeled.tsv").write_text("\n".join(["sentence", *lines, f"{domain} test 3", " "]) + "\n")
    plain, more = fdu_mtl.load(str(tmp_path)), fdu_mtl.load(str(tmp_path), unlabelled=True)
    assert len(more.train) == len(plain.train) + 120
    added = slice(len(plain.train), None)
    assert set(more.train.labels[added]) == {-1}
    assert [more.group_names[g] for g in more.train.groups[added]] == [text.split()[0] for text in more.train.inputs[added]]
    assert "2 unlabeled examples left out: they have no text" in more.notes
    assert more.name == "fdu-mtl(unlabelled=True)"
    (tmp_path / "dvd" / "unlabeled.tsv").write_text("text\nx\n")
    with pytest.raises(InputError, match=r"dvd/unlabeled\.tsv: no column 'sentence', found text"):
        fdu_mtl.load(str(tmp_path), unlabelled=True)


def test_an_option_that_is_neither_true_nor_false_names_the_task(folder):
    with pytest.raises(InputError, match=r"task fdu-mtl\(unlabelled='yes'\): expected true or false"):
        fdu_mtl.load(str(folder), unlabelled="yes")
