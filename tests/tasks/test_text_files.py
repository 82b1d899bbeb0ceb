"""``folder:PATH``: what may be in a folder of your own texts, and the task that it becomes."""

import json

import pytest
from text_data import GOOD, TEST, check_defect
from text_rows import ROWS, examples, load, write

from kd_env import tasks
from kd_env.cli import invoke
from kd_env.errors import InputError
from kd_env.models.encode import encode
from kd_env.models.networks import build
from kd_env.tasks.task import SPLITS
from kd_env.teachers.pool_recipes import POOLS, PoolRecipe
from kd_env.teachers.train_recipe import TeacherRecipe
from kd_env.testing import check_task


@pytest.fixture
def folder(tmp_path):
    return tmp_path


DEFECTS = {
    "an empty folder": ({}, "no train.tsv, train.csv, train.jsonl or train.parquet; the folder holds nothing"),
    "no training file": ({"test.tsv": TEST}, "no train.tsv, train.csv, train.jsonl or train.parquet; the folder holds test.tsv"),
    "another suffix": ({"train.txt": GOOD}, "the folder holds train.txt"),
}


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_folder_without_a_training_file_is_refused(defect, tmp_path):
    check_defect(tmp_path / "own", *DEFECTS[defect])


@pytest.mark.parametrize("column", ["group", "domain"])
def test_groups_are_names(folder, column):
    write(folder, "train.tsv", [(text, label, "xyz"[i % 3]) for i, (text, label) in enumerate(ROWS)], ("sentence", "label", column))
    task = load(folder)
    assert task.group_names == ("x", "y", "z")
    assert examples(task) == sorted((text, str(label), "xyz"[i % 3]) for i, (text, label) in enumerate(ROWS))
    assert task.defaults.pool == "text/experts"


def test_spaces_around_groups_do_not_count_and_a_note_names_groups_that_differ_in_case(folder):
    names = ("books", "books ", "Kitchen", "kitchen")
    write(folder, "train.tsv", [(text, label, names[i % 4]) for i, (text, label) in enumerate(ROWS)], ("sentence", "label", "group"))
    task = load(folder)
    assert task.group_names == ("Kitchen", "books", "kitchen")
    assert "groups that differ in case, spacing or Unicode form alone: Kitchen, kitchen; correct them in the files" in task.notes


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
def test_encoding_is_what_the_tokenizer_returns(folder, pairs):
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


def test_equal_rows_stay_in_one_split(folder):
    write(folder, "train.tsv", ROWS * 3)
    assert len(examples(load(folder))) == 900
    check_task(lambda: load(folder))


def test_splits_that_are_there_are_used_and_the_notes_say_the_rest(folder):
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
        "validation has 64 examples, so an accuracy on it has a standard error of up to 0.062",
    )


def test_the_metric_is_part_of_the_name(folder):
    write(folder, "train.tsv")
    assert (load(folder).metric, load(folder).name) == ("accuracy", f"folder:{folder}")
    task = tasks.load(f"folder:{folder}(metric=f1)")
    assert (task.metric, task.name) == ("f1", f"folder:{folder}(metric=f1)")


@pytest.mark.long
def test_from_a_folder_to_a_bank_and_a_report(folder, capsys, monkeypatch):
    recipes = (
        TeacherRecipe("one", "tiny-bert(width=8,layers=1)", epochs=1),
        TeacherRecipe("two", "tiny-bert(width=8,layers=1)", epochs=1, seed=1),
    )
    monkeypatch.setitem(POOLS, "text/sizes", PoolRecipe("small", recipes))
    (folder / "own").mkdir()
    write(folder / "own", "train.tsv")
    task = f"folder:{folder}/own"
    assert invoke(["bank", "--task", task, "--out", f"{folder}/bank"]) == 0
    output = capsys.readouterr()
    assert output.out.startswith(f"bank {folder}/bank: one, two; fingerprint ")
    assert f"{task}: carved from train: reward 64, validation 64, test 64; left: 108\n" in output.err
    run = ["run", "--task", task, "--policy", "uniform", "--seeds", "0", "--updates", "3", "--workers", "1", "--out", f"{folder}/out"]
    assert invoke([*run, "--bank", f"{folder}/bank", "--student", "tiny-bert(width=8,layers=1)", "--quiet"]) == 0
    assert capsys.readouterr() == (f"{folder}/out/report.html\n", "")
    record = json.loads((folder / "out" / "results.jsonl").read_text())
    assert (record["task"], record["env"]["task"]) == (task, task)
    assert 0 <= record["test"] <= 1


# files as they come


def test_columns_are_named_by_options_of_the_task_and_of_the_command_line(folder, capsys):
    write(folder, "train.csv", [(i, text, label, "ab"[label]) for i, (text, label) in enumerate(ROWS)], ("", "review", "stars", "shop"))
    name = f"folder:{folder}(group=shop,label=stars,text=review)"
    task = tasks.load(name)
    assert examples(task) == sorted((text, str(label), "ab"[label]) for text, label in ROWS)
    assert (task.name, task.notes[0]) == (name, "columns not used: the one without a name")
    options = ["--text", "review", "--label", "stars", "--group", "shop"]
    teach = ["teach", "--task", f"folder:{folder}", "--model", "tiny-bert(width=8,layers=1)", "--groups", "a", "--epochs", "1", "--quiet"]
    assert invoke([*teach, *options, "--out", f"{folder}/out"]) == 0
    assert json.loads((folder / "out" / "teaching.json").read_text())["task"] == name
    with pytest.raises(InputError, match=r"text, pair, label and group are different columns, and two have one name"):
        load(folder, text="review", label="review")


def test_a_test_file_without_labels_is_passed_over(folder):
    write(folder, "train.csv")
    write(folder, "test.csv", [(f"test {text}",) for text, _ in ROWS], ("sentence",))
    task = load(folder)
    assert len(task.test) == 64
    assert task.notes[0] == (
        "test.csv is passed over, since its column label is missing; to teach with its texts, rename it to unlabelled and add the option "
        "unlabelled=true"
    )
    (folder / "test.csv").rename(folder / "unlabelled.csv")
    assert len(load(folder, unlabelled=True).train) == 108 + 300


def test_the_length_and_the_tokenizer_are_part_of_the_name_and_of_the_content(folder):
    write(folder, "train.tsv", [(f"The {text} " + "x " * 200, label) for text, label in ROWS])
    plain, longer, cased = (tasks.load(f"folder:{folder}{options}") for options in ("", "(max_length=160)", "(cased=true)"))
    assert longer.name == f"folder:{folder}(max_length=160)"
    assert len({task.fingerprint for task in (plain, longer, cased)}) == 3
    assert encode(plain, plain.train.inputs)["input_ids"].shape[1] == 128
    inputs = encode(longer, longer.train.inputs[:2])
    assert inputs["input_ids"].shape[1] == 160
    assert build("tiny-bert(width=8,layers=1)", longer, 0)(**inputs).logits.shape == (2, 2)
    assert cased.tokenizer().convert_ids_to_tokens(cased.tokenizer()("The")["input_ids"])[1] == "The"
    with pytest.raises(InputError, match=r"max_length=2\): expected a whole number of at least 3"):
        tasks.load(f"folder:{folder}(max_length=2)")
    with pytest.raises(InputError, match="max_length=7 is for texts, and this task holds images; leave it out"):
        tasks.load("digits(max_length=7)")
