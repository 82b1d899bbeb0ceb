"""``folder:PATH``: what may be in a folder of your own texts, and the task that it becomes."""

import json

import pytest
from text_data import GOOD, TEST, check_defect, write_texts

from kd_env import tasks
from kd_env.cli import invoke
from kd_env.errors import InputError
from kd_env.models.encode import encode
from kd_env.models.networks import build
from kd_env.tasks import text_files
from kd_env.tasks.task import SPLITS
from kd_env.teachers.pool_recipes import POOLS, PoolRecipe
from kd_env.teachers.train_recipe import TeacherRecipe
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


SMALL = "validation has 20 examples, so an accuracy on it has a standard error of up to 0.112"

DEFECTS = {
    "an empty folder": ({}, "no train.tsv, train.csv, train.jsonl or train.parquet; the folder holds nothing"),
    "no training file": ({"test.tsv": TEST}, "no train.tsv, train.csv, train.jsonl or train.parquet; the folder holds test.tsv"),
    "another suffix": ({"train.txt": GOOD}, "the folder holds train.txt"),
}


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_folder_without_a_training_file_is_refused(defect, tmp_path):
    check_defect(tmp_path / "own", *DEFECTS[defect])


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


# unlabelled texts


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
