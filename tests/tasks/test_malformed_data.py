"""Data that cannot be used: each defect is one line that names the file, where there is one the line, and the mend."""

import os
import re
import shutil

import pytest

from kd_env import tasks
from kd_env.cli import invoke
from kd_env.errors import InputError
from kd_env.tasks.texts import _shown

WORDS = ["amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "heath", "islet", "jetty"]


def lines(count=256, label=lambda i: i % 2, start=0):
    """As many different sentences, each with its label, tab-separated."""
    return [f"{WORDS[i % 10]} {WORDS[i // 10 % 10]} number {i}\t{label(i)}" for i in range(start, start + count)]


def tsv(*rows, header="sentence\tlabel", end="\n"):
    return end.join([header, *rows]) + end


def at(position, line, rows=None):
    """Good rows, one of them replaced; the header is line 1, the row at 3 is line 5."""
    rows = lines() if rows is None else rows
    return tsv(*rows[:position], line, *rows[position + 1 :])


def jsonl(*rows):
    return "\n".join(rows) + "\n"


def objects(count=256):
    return ['{{"sentence": "{}", "label": {}}}'.format(*row.split("\t")) for row in lines(count)]


def csv(*rows):
    return tsv(*(row.replace("\t", ",") for row in rows or lines()), header="sentence,label")


GOOD = tsv(*lines())
TEST = tsv(*lines(64, start=1000))
PAIRS = tsv(*(f"{row.split(chr(9))[0]}\tother\t{i % 2}" for i, row in enumerate(lines())), header="sentence1\tsentence2\tlabel")
GROUPED = tsv(*(f"{row}\tg{i % 2}" for i, row in enumerate(lines())), header="sentence\tlabel\tgroup")
FOLDER = object()
LONE = '{"sentence": "half \\ud800 pair", "label": 1}'

CASES = {
    "an empty folder": ({}, "no train.tsv, train.csv or train.jsonl; the folder holds nothing"),
    "no training file": ({"test.tsv": TEST}, "no train.tsv, train.csv or train.jsonl; the folder holds test.tsv"),
    "another suffix": ({"train.txt": GOOD}, "the folder holds train.txt"),
    "two training files": ({"train.tsv": GOOD, "train.csv": csv()}, "both train.tsv and train.csv; keep one"),
    "two test files": ({"train.tsv": GOOD, "test.csv": csv(), "test.jsonl": jsonl(*objects())}, "both test.csv and test.jsonl; keep one"),
    "a folder called train.tsv": ({"train.tsv": FOLDER}, "train.tsv is a folder; expected a file of examples"),
    "an empty file": ({"train.tsv": ""}, "train.tsv: the file is empty; it needs a line that names its columns"),
    "blank lines alone": ({"train.tsv": "\n\n\n"}, "train.tsv: the file is empty"),
    "an empty jsonl": ({"train.jsonl": ""}, "train.jsonl: the file is empty"),
    "a header alone": ({"train.tsv": "sentence\tlabel\n"}, "train.tsv: there is a header and no example below it"),
    "a header alone, csv": ({"train.csv": "sentence,label\n"}, "train.csv: there is a header and no example below it"),
    "an empty test file": ({"train.tsv": GOOD, "test.tsv": ""}, "test.tsv: the file is empty"),
    "no header": ({"train.tsv": tsv(*lines()[1:], header=lines()[0])}, "train.tsv: columns amber amber number 0, 0; expected sentence"),
    "no sentence": (
        {"train.tsv": tsv(*lines(), header="text\tlabel")},
        "train.tsv: columns text, label; expected sentence, or sentence1 and",
    ),
    "commas in a tsv": ({"train.tsv": csv()}, "train.tsv: columns sentence,label; expected sentence"),
    "semicolons in a csv": ({"train.csv": csv().replace(",", ";")}, "train.csv: columns sentence;label; expected sentence"),
    "no label": ({"train.tsv": tsv(*lines(), header="sentence\tclass")}, "train.tsv: no column label, add it"),
    "a misspelt label": ({"train.tsv": tsv(*lines(), header="sentence\tlable")}, "train.tsv: no column label; rename 'lable'"),
    "a test without labels": ({"train.tsv": GOOD, "test.tsv": tsv("amber", header="sentence")}, "test.tsv: no column label, add it"),
    "a misspelt group": ({"train.tsv": GROUPED.replace("group", "groups")}, "train.tsv: unknown column 'groups'; did you mean 'group'?"),
    "both group and domain": (
        {"train.tsv": tsv(*(f"{row}\ta\tb" for row in lines()), header="sentence\tlabel\tgroup\tdomain")},
        "train.tsv: both group and domain; they mean the same, keep one",
    ),
    "a column twice": (
        {"train.tsv": tsv(*(f"{row}\t1" for row in lines()), header="sentence\tlabel\tlabel")},
        "line 1: column 'label' is there twice",
    ),
    "a key twice": (
        {"train.jsonl": jsonl('{"sentence": "x", "label": 0, "label": 1}')},
        "train.jsonl, line 1: column 'label' is there twice",
    ),
    "sentence and sentence1": (
        {"train.tsv": PAIRS.replace("sentence2", "sentence", 1)},
        "train.tsv: columns sentence1, sentence, label; expected sentence, or sentence1 and sentence2",
    ),
    "sentence1 alone": ({"train.tsv": GOOD.replace("sentence", "sentence1")}, "train.tsv: column sentence1 alone; a pair is sentence1 and"),
    "sentence2 alone": ({"train.tsv": GOOD.replace("sentence", "sentence2")}, "train.tsv: column sentence2 alone"),
    "pairs in train, single texts in test": (
        {"train.tsv": PAIRS, "test.tsv": TEST},
        "test.tsv: train.tsv holds pairs and test.tsv holds single texts; give all files of a task the same columns",
    ),
    "too few fields": ({"train.tsv": at(3, "amber")}, "train.tsv, line 5: 1 fields, expected 2 (sentence, label); mend that line"),
    "too many fields": ({"train.tsv": at(3, "amber\tbirch\t1")}, "train.tsv, line 5: 3 fields, expected 2"),
    "too many fields, csv": ({"train.csv": csv(*lines(3), "well, then\t1")}, "train.csv, line 5: 3 fields, expected 2"),
    "a torn last line": ({"train.tsv": GOOD[:-3]}, "train.tsv, line 257: 1 fields, expected 2"),
    "an empty text": ({"train.tsv": at(3, "\t1")}, "train.tsv, line 5: sentence is empty; fill it in or delete that line"),
    "a text of blanks": ({"train.tsv": at(3, "  \t1")}, "train.tsv, line 5: sentence is empty"),
    "an empty second text": ({"train.tsv": PAIRS.replace("other", "", 1)}, "train.tsv, line 2: sentence2 is empty"),
    "an empty label": ({"train.tsv": at(3, "amber\t")}, "train.tsv, line 5: label is empty; fill it in or delete that line"),
    "an empty group": ({"train.tsv": GROUPED.replace("\tg1\n", "\t\n", 1)}, "train.tsv, line 3: group is empty"),
    "an empty label in test": ({"train.tsv": GOOD, "test.tsv": TEST + "amber\t\n"}, "test.tsv, line 66: label is empty"),
    "one class": ({"train.tsv": tsv(*lines(label=lambda i: 1))}, "train.tsv: every label is '1'; a classifier needs at least two classes"),
    "a label an example": ({"train.tsv": tsv(*lines(label=lambda i: i))}, "train.tsv: 256 labels in 256 examples; a label is a class"),
    "a label of test that train lacks": (
        {"train.tsv": GOOD, "test.tsv": TEST + "amber\t2\n"},
        "test.tsv, line 66: label '2' is not among those of the training file (0, 1)",
    ),
    "a name of test that train lacks": (
        {"train.tsv": tsv(*lines(label=lambda i: ["no", "yes"][i % 2])), "test.tsv": tsv("amber\tmaybe")},
        "test.tsv, line 2: label 'maybe' is not among those of the training file (no, yes)",
    ),
    "names in test, numbers in train": (
        {"train.tsv": GOOD, "test.tsv": tsv("amber\tpositive")},
        "test.tsv, line 2: label 'positive', where the labels before it are whole numbers; use one kind",
    ),
    "a name among numbers": (
        {"train.tsv": at(3, "amber\tpositive")},
        "train.tsv, line 5: label 'positive', where the labels before it are whole",
    ),
    "a number among names": (
        {"train.tsv": at(3, "amber\t1", lines(label=lambda i: ["no", "yes"][i % 2]))},
        "train.tsv, line 5: label '1', where the labels before it are names; use one kind",
    ),
    "fractions": (
        {"train.tsv": tsv(*lines(label=lambda i: i / 10))},
        "train.tsv, line 2: label '0.0' is no class; expected a whole number or",
    ),
    "a fraction": ({"train.tsv": at(3, "amber\t0.5")}, "train.tsv, line 5: label '0.5' is no class"),
    "not a number": ({"train.tsv": at(3, "amber\tnan")}, "train.tsv, line 5: label 'nan' is no class"),
    "an infinite label": ({"train.tsv": at(3, "amber\t-inf")}, "train.tsv, line 5: label '-inf' is no class"),
    "a huge label": ({"train.tsv": at(3, f"amber\t{10**30}")}, "train.tsv, line 5: label '1000000000000000000000000000000' is too large"),
    "a label of thousands of digits": ({"train.tsv": at(3, f"amber\t{'9' * 5000}")}, "train.tsv, line 5: label '9999"),
    "a group in train alone": (
        {"train.tsv": GROUPED, "test.tsv": TEST},
        "test.tsv: no column group, which train.tsv has; give it to both or to neither",
    ),
    "a group in test alone": ({"train.tsv": GOOD, "test.tsv": GROUPED}, "train.tsv: no column group, which test.tsv has"),
    "a group of test that train lacks": (
        {"train.tsv": GROUPED, "test.tsv": tsv("amber\t1\tg7", header="sentence\tlabel\tgroup")},
        "test.tsv, line 2: group 'g7' is not among those of the training file (g0, g1)",
    ),
    "latin-1": (
        {"train.tsv": at(3, "caf\u00e9\t1").encode("latin-1")},
        "train.tsv, line 5: byte 0xe9 is not UTF-8; save the file as UTF-8",
    ),
    "utf-16": ({"train.tsv": GOOD.encode("utf-16")}, "train.tsv, line 1: byte 0xff is not UTF-8"),
    "utf-16 without a mark": (
        {"train.tsv": GOOD.encode("utf-16-le")},
        "train.tsv, line 1: a NUL character; delete it, or save the file as UTF-8",
    ),
    "a NUL character": ({"train.tsv": at(3, "am\0ber\t1")}, "train.tsv, line 5: a NUL character"),
    "a NUL character in JSON": (
        {"train.jsonl": jsonl('{"sentence": "a\\u0000b", "label": 0}')},
        "train.jsonl, line 1: sentence holds a NUL",
    ),
    "half a character in JSON": ({"train.jsonl": jsonl(*objects(2), LONE)}, "train.jsonl, line 3: sentence holds a NUL character or half"),
    "no JSON": ({"train.jsonl": jsonl(*objects(2), '{"sentence": "x", "label": }')}, "train.jsonl, line 3: not JSON (Expecting value"),
    "single quotes": ({"train.jsonl": jsonl("{'sentence': 'x', 'label': 1}")}, "train.jsonl, line 1: not JSON"),
    "a JSON list": ({"train.jsonl": jsonl('["x", 1]')}, "train.jsonl, line 1: not a JSON object"),
    "one JSON list of all": ({"train.jsonl": "[\n" + ",\n".join(objects()) + "\n]"}, "train.jsonl, line 1: not JSON"),
    "a JSON number": ({"train.jsonl": jsonl(*objects(2), "7")}, "train.jsonl, line 3: not a JSON object"),
    "another key": (
        {"train.jsonl": jsonl(*objects(2), '{"text": "x", "label": 1}')},
        "train.jsonl, line 3: keys text, label, expected those of",
    ),
    "a key too few": (
        {"train.jsonl": jsonl(*objects(2), '{"sentence": "x"}')},
        "train.jsonl, line 3: keys sentence, expected those of the first",
    ),
    "a label that is null": (
        {"train.jsonl": jsonl('{"sentence": "x", "label": null}')},
        "line 1: label is None, expected a text or a whole number",
    ),
    "a label that is true": (
        {"train.jsonl": jsonl('{"sentence": "x", "label": true}')},
        "line 1: label is True, expected a text or a whole number",
    ),
    "a label that is 0.5": (
        {"train.jsonl": jsonl('{"sentence": "x", "label": 0.5}')},
        "line 1: label is 0.5, expected a text or a whole number",
    ),
    "a sentence that is a number": ({"train.jsonl": jsonl('{"sentence": 5, "label": 1}')}, "line 1: sentence is 5, expected a text"),
    "a sentence that is a list": ({"train.jsonl": jsonl('{"sentence": ["x"], "label": 1}')}, "line 1: sentence is ['x'], expected a text"),
    "brackets without end": ({"train.jsonl": jsonl("[" * 100_000)}, "train.jsonl, line 1: not JSON"),
    "a quote that is not closed": ({"train.csv": csv(*lines(3), '"amber\t1')}, "train.csv, line 5: unexpected end of data; quotes within"),
    "text behind a quote": ({"train.csv": csv(*lines(3), '"amber" birch\t1')}, "train.csv, line 5: ',' expected after '\"'"),
    "a text too long for csv": ({"train.csv": csv(*lines(3), f"{'a' * 200_000}\t1")}, "train.csv, line 5: field larger than field limit"),
    "too few to carve three splits": (
        {"train.tsv": tsv(*lines(255))},
        "255 training examples are too few to carve reward, validation, test from; give at least 256",
    ),
    "too few to carve two": (
        {"train.tsv": tsv(*lines(191)), "test.tsv": TEST},
        "191 training examples are too few to carve reward, validation from",
    ),
    "too few different texts": (
        {"train.tsv": tsv(*(lines(2) * 200))},
        "too few different training texts to carve reward, validation, test from",
    ),
    "train that is test": ({"train.tsv": GOOD, "test.tsv": GOOD}, "every example of train is also in test; give it examples of its own"),
    "validation that is test": (
        {"train.tsv": GOOD, "validation.tsv": TEST, "test.tsv": TEST},
        "every example of validation is also in test",
    ),
    "a class whose examples are all in test": (
        {"train.tsv": at(0, "amber\t2"), "test.tsv": tsv("Amber \t2")},
        "of class number 2 no training example is left beside those of other splits; give more of it",
    ),
    "a class that carving takes whole": (
        {"train.tsv": tsv(*lines(), "amber\t2")},
        "of class number 2 no training example is left beside those of other splits",
    ),
    "an unknown metric": ({"train.tsv": GOOD}, "'rouge'; known: accuracy, f1, mcc", "metric=rouge"),
    "an unknown option": ({"train.tsv": GOOD}, "got an unexpected keyword argument 'metrics'; options: metric", "metrics=f1"),
    "a data_dir": ({"train.tsv": GOOD}, "got an unexpected keyword argument 'data_dir'", "data_dir=x"),
    "an option without a value": ({"train.tsv": GOOD}, "'f1': expected key=value", "f1"),
}


def written(folder, files):
    folder.mkdir()
    for name, content in files.items():
        if content is FOLDER:
            (folder / name).mkdir()
        else:
            (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def refused(task, data_dir=None):
    with pytest.raises(InputError) as error:
        tasks.load(task, data_dir)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("what", CASES)
def test_a_defect_is_one_line_that_names_the_place(what, tmp_path):
    files, said, *options = CASES[what]
    folder = written(tmp_path / "own", files)
    message = refused(f"folder:{folder}({options[0]})" if options else f"folder:{folder}")
    assert said in message
    assert str(folder) in message or options
    assert len(message) < 400 + 2 * len(str(folder))


def test_a_folder_that_is_not_there(tmp_path):
    assert f"{tmp_path}/none does not exist; name a folder of data files" in refused(f"folder:{tmp_path}/none")
    (tmp_path / "file").touch()
    assert f"{tmp_path}/file is a file; name a folder" in refused(f"folder:{tmp_path}/file")
    assert "'' is no folder" in refused("folder:")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read anything")
def test_a_file_or_a_folder_that_may_not_be_read(tmp_path):
    folder = written(tmp_path / "own", {"train.tsv": GOOD})
    (folder / "train.tsv").chmod(0)
    assert "train.tsv cannot be read (Permission denied); check that it exists and that you may read it" in refused(f"folder:{folder}")
    folder.chmod(0)
    assert "cannot be read (Permission denied)" in refused(f"folder:{folder}")
    folder.chmod(0o700)
    shutil.rmtree(folder)


def test_what_is_shown_of_a_value_is_short():
    assert len(_shown("a" * 10_000)) == 60
    assert _shown("two\nlines") == "'two\\nlines'"


ON_COMMAND_LINE = ("no header", "too few fields", "a label of thousands of digits", "a quote that is not closed", "train that is test")


@pytest.mark.parametrize("command", ["bank", "run", "doctor"])
@pytest.mark.parametrize("what", ON_COMMAND_LINE)
def test_the_command_line_says_it_and_writes_nothing(command, what, tmp_path, capsys):
    folder = written(tmp_path / "own", CASES[what][0])
    before = sorted(tmp_path.rglob("*"))
    more = {"bank": ["--out", f"{tmp_path}/out"], "run": ["--policy", "uniform", "--out", f"{tmp_path}/out"], "doctor": []}[command]
    assert invoke([command, "--task", f"folder:{folder}", *more]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert re.fullmatch(r"kd-env: [^\n]+\n", said.err)
    assert CASES[what][1] in said.err
    assert sorted(tmp_path.rglob("*")) == before
