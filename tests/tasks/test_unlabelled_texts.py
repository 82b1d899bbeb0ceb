"""``folder:PATH(unlabelled=true)``: texts without a label are in train, and nowhere else."""

import pytest
from text_data import write_texts
from text_rows import load

from kd_env import tasks
from kd_env.cli import invoke
from kd_env.errors import InputError
from kd_env.testing import check_task

SMALL = "validation has 20 examples, so an accuracy on it has a standard error of up to 0.112"


@pytest.fixture
def partly_labelled(tmp_path):
    """40 labelled training texts and 200 texts without a label."""
    for name, count in (("train", 40), ("reward", 20), ("validation", 20), ("test", 20)):
        write_texts(tmp_path, name, count)
    write_texts(tmp_path, "unlabelled", 200, label=False)
    return tmp_path


def test_unlabelled_texts_are_in_train_if_they_are_asked_for_and_nowhere_else(partly_labelled):
    folder = partly_labelled
    (folder / "unlabelled.tsv").rename(folder.parent / "aside.tsv")
    before = load(folder)
    (folder.parent / "aside.tsv").rename(folder / "unlabelled.tsv")
    plain, more = load(folder), load(folder, unlabelled=True)
    assert plain.fingerprint == before.fingerprint
    assert not plain.unlabelled
    assert plain.notes == (
        "not read: unlabelled.tsv; folder:PATH(unlabelled=true) adds its texts to train, where only the teachers teach them",
        SMALL,
    )
    assert more.fingerprint != plain.fingerprint
    assert len(more.train) == 240
    assert more.train.labels.tolist() == [*plain.train.labels.tolist(), *[-1] * 200]
    assert more.train.inputs[:40].tolist() == plain.train.inputs.tolist()
    assert set(more.train.inputs[40:]) == {f"unlabelled {i} {('dull', 'fine')[i % 2]}" for i in range(200)}
    for name in ("reward", "validation", "test"):
        assert getattr(more, name).inputs.tolist() == getattr(plain, name).inputs.tolist()
        assert getattr(more, name).labels.min() == 0
    assert more.notes == ("200 unlabelled training examples from unlabelled.tsv, in train with label -1", SMALL)
    assert more.name == f"folder:{folder}(unlabelled=True)"
    assert tasks.load(more.name).fingerprint == tasks.load(f"folder:{folder}(unlabelled=true)").fingerprint
    check_task(lambda: tasks.load(more.name))


def test_the_unlabelled_option_and_file_are_checked(partly_labelled):
    folder = partly_labelled
    with pytest.raises(InputError, match=r"task folder:.*\(unlabelled='yes'\): expected true or false"):
        load(folder, unlabelled="yes")
    write_texts(folder, "unlabeled", 3, label=False)
    with pytest.raises(InputError, match=r"both unlabelled\.tsv and unlabeled\.tsv; keep one of them"):
        load(folder, unlabelled=True)
    (folder / "unlabelled.tsv").unlink()
    (folder / "unlabeled.tsv").unlink()
    with pytest.raises(InputError, match=r"holds no unlabelled\.tsv, \.csv, \.jsonl or \.parquet; add it, or leave unlabelled out"):
        load(folder, unlabelled=True)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("sentence\n  \n \n", "unlabelled.tsv: all 2 rows lack sentence; fill them in, or name other columns"),
        ("sentence\nfine\ta\n", "unlabelled.tsv, line 2: 2 fields, expected 1 (sentence)"),
        ("text\nfine\n", "unlabelled.tsv: columns text; expected sentence"),
        ("sentence1\tsentence2\na\tb\n", "unlabelled.tsv: train.tsv holds single texts and unlabelled.tsv holds pairs"),
        ("sentence\tgroup\nfine\ta\n", "train.tsv: no column group, which unlabelled.tsv has"),
        ("sentence\n", "unlabelled.tsv: there is a header and no example below it"),
        ("sentence\nfine\0\n", "unlabelled.tsv, line 2: a NUL character"),
    ],
    ids=["empty cell", "fields", "columns", "pairs", "group", "nothing", "NUL"],
)
def test_a_malformed_unlabelled_file_is_one_line(content, message, partly_labelled, capsys):
    (partly_labelled / "unlabelled.tsv").write_text(content)
    assert invoke(["bank", "--task", f"folder:{partly_labelled}(unlabelled=true)", "--quiet"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert message in err
    assert str(partly_labelled) in err
