"""A folder of one's own: what may be in it, and what becomes of it."""

import json
import re

import numpy as np
import pytest

from kd_env import tasks
from kd_env.cli import invoke
from kd_env.errors import InputError
from kd_env.models.encode import encode
from kd_env.tasks import text_files, with_data_dir
from kd_env.tasks.task import SPLITS
from kd_env.testing import check_task

ROWS = [(f"number {i} {'fine' if i % 2 else 'dull'}", i % 2) for i in range(300)]


@pytest.fixture
def folder(tmp_path):
    return tmp_path


def write(folder, name, rows=ROWS, columns=("sentence", "label"), end="\n", mark=""):
    """One file, in the format its suffix names."""
    if name.endswith(".jsonl"):
        lines = [json.dumps(dict(zip(columns, row, strict=True))) for row in rows]
    else:
        lines = [("," if name.endswith(".csv") else "\t").join(map(str, row)) for row in [columns, *rows]]
    (folder / name).write_bytes((mark + end.join(lines) + end).encode())


def load(folder, **options):
    return text_files.load(str(folder), **options)


def examples(task):
    """All texts with their class and group, as names."""
    groups = task.group_names or ("",)
    return sorted(
        (text, task.class_names[label], groups[group])
        for split in (getattr(task, name) for name in SPLITS)
        for text, label, group in zip(split.inputs, split.labels, split.groups if task.group_names else [0] * len(split), strict=True)
    )


def test_all_formats_give_the_same_task(folder):
    fingerprints = set()
    for suffix in (".tsv", ".csv", ".jsonl"):
        (folder / suffix).mkdir()
        write(folder / suffix, f"train{suffix}")
        task = load(folder / suffix)
        assert examples(task) == sorted((text, str(label), "") for text, label in ROWS)
        fingerprints.add(task.fingerprint)
    assert len(fingerprints) == 1


@pytest.mark.parametrize("options", [{"end": "\r\n"}, {"mark": "\ufeff"}, {"end": "\n\n"}, {"end": "\r\n", "mark": "\ufeff"}])
@pytest.mark.parametrize("suffix", [".tsv", ".csv", ".jsonl"])
def test_marks_line_ends_and_blank_lines_change_nothing(folder, suffix, options):
    write(folder, f"train{suffix}")
    plain = load(folder).fingerprint
    write(folder, f"train{suffix}", **options)
    assert load(folder).fingerprint == plain


def test_the_last_line_needs_no_end(folder):
    write(folder, "train.tsv")
    plain = load(folder).fingerprint
    (folder / "train.tsv").write_text((folder / "train.tsv").read_text().rstrip("\n"))
    assert load(folder).fingerprint == plain


def test_a_tsv_is_raw_text(folder):
    odd = [
        '" open',
        'a "quoted" word',
        "'",
        "a, b",
        "back\\slash",
        "line\u2028separator",
        "\x85next",
        "form\x0cfeed",
        "bell\x07",
        "inner\rreturn",
    ]
    write(folder, "train.tsv", ROWS + [(text, 1) for text in odd])
    texts = {text for text, _, _ in examples(load(folder))}
    assert texts == {text for text, _ in ROWS} | set(odd)


def test_a_csv_is_quoted(folder):
    write(folder, "train.csv", [*ROWS, ('"one, ""two""\nthree"', 1)])
    assert ('one, "two"\nthree', "1", "") in examples(load(folder))
    (folder / "train.csv").write_text((folder / "train.csv").read_text() + "too,many,fields\n")
    with pytest.raises(InputError, match=r"train\.csv, line 304: 3 fields"):
        load(folder)


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        ((0, 1), ("0", "1")),
        ((1, 2), ("1", "2")),
        ((-1, 1), ("-1", "1")),
        ((2, 10), ("2", "10")),
        (("pos", "neg"), ("neg", "pos")),
        (("nicht übel", "schlecht"), ("nicht übel", "schlecht")),
        (("01", "2"), ("1", "2")),
        ((" a ", "b"), ("a", "b")),
    ],
)
def test_labels_are_integers_or_names(folder, labels, names):
    write(folder, "train.tsv", [(text, labels[label]) for text, label in ROWS])
    task = load(folder)
    assert task.class_names == names
    class_of = {text: task.class_names[label] for text, label in zip(task.train.inputs, task.train.labels, strict=True)}
    for text, label in ROWS:
        if text in class_of:
            assert class_of[text] == (str(int(labels[label])) if names[0].lstrip("-").isdigit() else labels[label].strip())


def test_integers_in_json_may_be_texts(folder):
    write(folder, "train.jsonl", [(text, str(label) if row % 3 else label) for row, (text, label) in enumerate(ROWS)])
    assert load(folder).class_names == ("0", "1")


@pytest.mark.parametrize("column", ["group", "domain"])
def test_groups_are_names(folder, column):
    write(folder, "train.tsv", [(text, label, "xyz"[i % 3]) for i, (text, label) in enumerate(ROWS)], ("sentence", "label", column))
    task = load(folder)
    assert task.group_names == ("x", "y", "z")
    assert examples(task) == sorted((text, str(label), "xyz"[i % 3]) for i, (text, label) in enumerate(ROWS))
    assert task.defaults.pool == "text/experts"


def test_pairs(folder):
    rows = [(text, f"answer {i % 7}", label) for i, (text, label) in enumerate(ROWS)]
    write(folder, "train.tsv", rows, ("sentence1", "sentence2", "label"))
    task = load(folder)
    assert task.train.inputs.shape == (len(task.train), 2)
    assert {tuple(pair) for name in SPLITS for pair in getattr(task, name).inputs} == {(first, second) for first, second, _ in rows}
    encoded = encode(task, task.train.inputs)
    tokenizer = task.tokenizer()
    first, second = task.train.inputs[0]
    row = encoded["input_ids"][0][encoded["attention_mask"][0].bool()]
    assert tokenizer.decode(row) == f"[CLS] {first} [SEP] {second} [SEP]"
    check_task(lambda: load(folder))


def test_a_pair_is_not_its_two_texts_nor_the_other_way_round(folder):
    for name, rows in (("one", [(a, f"b {a}", y) for a, y in ROWS]), ("two", [(f"b {a}", a, y) for a, y in ROWS])):
        (folder / name).mkdir()
        write(folder / name, "train.tsv", rows, ("sentence1", "sentence2", "label"))
    assert load(folder / "one").fingerprint != load(folder / "two").fingerprint


def test_a_text_of_ten_thousand_words_is_cut(folder):
    write(folder, "train.tsv")
    write(folder, "test.tsv", [("long " * 10_000, 1), ("short", 0)])
    task = load(folder)
    assert task.test.inputs[0] == "long " * 10_000
    assert encode(task, task.test.inputs)["input_ids"].shape == (2, 128)


@pytest.mark.parametrize("pairs", [False, True])
def test_encoding_is_the_tokenizer_s_own(folder, pairs):
    rows = [(text, *(["an answer " * (label * 5 + 1)] if pairs else []), label) for text, label in ROWS]
    write(folder, "train.tsv", rows, ("sentence1", "sentence2", "label") if pairs else ("sentence", "label"))
    task = load(folder)
    for count in (1, len(task.train)):
        raw = task.train.inputs[:count]
        columns = [raw[:, 0].tolist(), raw[:, 1].tolist()] if pairs else [raw.tolist()]
        expected = task.tokenizer()(*columns, padding=True, truncation=True, max_length=128, return_tensors="pt")
        encoded = encode(task, raw)
        assert set(encoded) == {"input_ids", "attention_mask"}
        for name, tensor in encoded.items():
            assert tensor.dtype == expected[name].dtype
            assert tensor.equal(expected[name])


def test_equal_rows_are_kept_on_one_side(folder):
    write(folder, "train.tsv", ROWS * 3)
    assert len(examples(load(folder))) == 900
    check_task(lambda: load(folder))


def test_given_splits_are_taken_and_the_rest_is_said(folder):
    write(folder, "train.csv", columns=("sentence", "label"))
    write(folder, "test.jsonl", [(f"test {text}", label, i) for i, (text, label) in enumerate(ROWS[:40])], ("sentence", "label", "id"))
    write(folder, "transfer.tsv")
    write(folder, "valid.tsv")
    task = load(folder)
    assert {name: len(getattr(task, name)) for name in SPLITS} == {"train": 172, "reward": 64, "validation": 64, "test": 40}
    assert list(task.test.inputs) == [f"test {text}" for text, _ in ROWS[:40]]
    assert task.notes == (
        "not read: transfer.tsv, valid.tsv (files are train, reward, validation, dev, test)",
        "columns not used: id",
        "carved from train: reward 64, validation 64; left: 172",
    )


def test_the_metric_is_part_of_the_name(folder):
    write(folder, "train.tsv")
    assert (load(folder).metric, load(folder).name) == ("accuracy", f"folder:{folder}")
    task = tasks.load(f"folder:{folder}(metric=f1)")
    assert (task.metric, task.name) == ("f1", f"folder:{folder}(metric=f1)")


def test_a_folder_s_name_may_hold_brackets(folder):
    odd = folder / "mine (old), 2=two"
    odd.mkdir()
    write(odd, "train.tsv")
    assert tasks.load(f"folder:{odd}").name == f"folder:{odd}"
    assert tasks.load(f"folder:{odd}(metric=mcc)").metric == "mcc"


def test_training_rows_are_shuffled_once(folder):
    write(folder, "train.tsv", sorted(ROWS, key=lambda row: row[1]))
    task = tasks.load(f"folder:{folder}")
    assert np.abs(np.corrcoef(np.arange(len(task.train)), task.train.labels)[0, 1]) < 0.3


@pytest.mark.parametrize(
    ("text", "data_dir", "whole"),
    [
        ("glue/sst2", None, "glue/sst2"),
        ("glue/sst2", "some/where", "glue/sst2(data_dir=some/where)"),
        ("glue/sst2(metric=f1)", "/a b", "glue/sst2(data_dir=/a b,metric=f1)"),
        ("glue/sst2", "./7", "glue/sst2(data_dir=./7)"),
        ("glue/sst2", "/a(b)", "glue/sst2(data_dir=/a(b))"),
    ],
)
def test_a_data_dir_goes_into_the_name(text, data_dir, whole):
    assert with_data_dir(text, data_dir) == whole


@pytest.mark.parametrize("data_dir", ["a,b", "7", " a", "true", "a,b=c"])
def test_a_data_dir_that_would_be_read_as_something_else_is_refused(data_dir):
    with pytest.raises(InputError, match=re.escape(f"data_dir {data_dir!r} cannot stand in a task's name; use a path without commas")):
        with_data_dir("glue/sst2", data_dir)


def test_a_data_dir_is_given_once():
    with pytest.raises(InputError, match=r"task 'glue/sst2\(data_dir=a\)' names its data_dir, and 'b' is given too"):
        with_data_dir("glue/sst2(data_dir=a)", "b")


def test_from_a_folder_to_a_bank_and_a_report(folder, capsys, monkeypatch):
    from kd_env.teachers import pools
    from kd_env.teachers.train import TeacherRecipe

    recipes = (
        TeacherRecipe("one", "tiny-bert(width=8,layers=1)", epochs=1),
        TeacherRecipe("two", "tiny-bert(width=8,layers=1)", epochs=1, seed=1),
    )
    monkeypatch.setitem(pools.POOLS, "text/sizes", pools.PoolRecipe("small", recipes))
    (folder / "own").mkdir()
    write(folder / "own", "train.tsv")
    task = f"folder:{folder}/own"
    assert invoke(["bank", "--task", task, "--out", f"{folder}/bank"]) == 0
    said = capsys.readouterr()
    assert said.out.startswith(f"bank {folder}/bank: one, two; fingerprint ")
    assert f"{task}: carved from train: reward 64, validation 64, test 64; left: 108\n" in said.err
    run = ["run", "--task", task, "--policy", "uniform", "--seeds", "0", "--updates", "3", "--workers", "1", "--out", f"{folder}/out"]
    assert invoke([*run, "--bank", f"{folder}/bank", "--student", "tiny-bert(width=8,layers=1)", "--quiet"]) == 0
    assert capsys.readouterr() == (f"{folder}/out/report.html\n", "")
    record = json.loads((folder / "out" / "results.jsonl").read_text())
    assert (record["task"], record["env"]["task"]) == (task, task)
    assert 0 <= record["test"] <= 1
