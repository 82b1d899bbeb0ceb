"""Columns of a file of texts: which there must be, and cells that cannot be used."""

from pathlib import Path

import pytest
from text_data import GOOD, GROUPED, PAIRS, TEST, check_defect, csv, jsonl, lines, objects, tsv, with_line_5

from kd_env.tasks.columns import USUAL, ColumnNames, has_labels, short_repr, text_columns, unused_columns
from kd_env.tasks.tables import Table

HALF_PAIR = '{"sentence": "half \\ud800 pair", "label": 1}'

STRICT = "(strict=true)"

DEFECTS = {
    "no header": ({"train.tsv": tsv(*lines()[1:], header=lines()[0])}, "train.tsv: columns amber amber number 0, 0; expected sentence"),
    "no sentence": (
        {"train.tsv": tsv(*lines(), header="text\tlabel")},
        "train.tsv: columns text, label; expected sentence, or sentence1 and",
    ),
    "commas in a tsv": ({"train.tsv": csv()}, "train.tsv: columns sentence,label; expected sentence"),
    "no label": (
        {"train.tsv": tsv(*lines(), header="sentence\tclass")},
        "train.tsv: no column label, name it, as --label class, or add it",
    ),
    "a misspelt label": ({"train.tsv": tsv(*lines(), header="sentence\tlable")}, "train.tsv: no column label; rename 'lable'"),
    "a validation without labels": (
        {"train.tsv": GOOD, "validation.tsv": tsv("amber", header="sentence")},
        "validation.tsv: no column label, ",
    ),
    "a text that is not there": ({"train.tsv": GOOD}, "train.tsv: no column 'review', found sentence, label", "(text=review)"),
    "a label that is not there": ({"train.tsv": GOOD}, "train.tsv: no column stars, found sentence, label", "(label=stars)"),
    "a group that is not there": ({"train.tsv": GOOD}, "train.tsv: no column 'shop', found sentence, label", "(group=shop)"),
    "a second text alone": ({"train.tsv": GOOD}, "train.tsv: pair='answer' names the second text; name the first one too", "(pair=answer)"),
    "nothing but empty texts": ({"train.tsv": tsv("\t1", "\t0")}, "train.tsv: all 2 rows lack sentence or label; fill them in"),
    "a misspelt group": ({"train.tsv": GROUPED.replace("group", "groups")}, "train.tsv: unknown column 'groups'; did you mean 'group'?"),
    "both group and domain": (
        {"train.tsv": tsv(*(f"{row}\ta\tb" for row in lines()), header="sentence\tlabel\tgroup\tdomain")},
        "train.tsv: both group and domain; they mean the same, keep one, or name one with --group",
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
    "a group in train alone": (
        {"train.tsv": GROUPED, "test.tsv": TEST},
        "test.tsv: no column group, which train.tsv has; give it to both or to neither",
    ),
    "a group in test alone": ({"train.tsv": GOOD, "test.tsv": GROUPED}, "train.tsv: no column group, which test.tsv has"),
    "an empty text": ({"train.tsv": with_line_5("\t1")}, "train.tsv, line 5: sentence is empty; fill it in or delete that line", STRICT),
    "a text of blanks": ({"train.tsv": with_line_5("  \t1")}, "train.tsv, line 5: sentence is empty", STRICT),
    "an empty second text": ({"train.tsv": PAIRS.replace("other", "", 1)}, "train.tsv, line 2: sentence2 is empty", STRICT),
    "an empty label": ({"train.tsv": with_line_5("amber\t")}, "train.tsv, line 5: label is empty; fill it in or delete that line", STRICT),
    "an empty group": ({"train.tsv": GROUPED.replace("\tg1\n", "\t\n", 1)}, "train.tsv, line 3: group is empty", STRICT),
    "an empty label in test": ({"train.tsv": GOOD, "test.tsv": TEST + "amber\t\n"}, "test.tsv, line 66: label is empty", STRICT),
    "a NUL character in JSON": (
        {"train.jsonl": jsonl('{"sentence": "a\\u0000b", "label": 0}')},
        "train.jsonl, line 1: sentence holds a NUL",
    ),
    "half a character in JSON": (
        {"train.jsonl": jsonl(*objects(2), HALF_PAIR)},
        "train.jsonl, line 3: sentence holds a NUL character or half",
    ),
    "a label that is null": (
        {"train.jsonl": jsonl('{"sentence": "x", "label": null}')},
        "train.jsonl, line 1: label is empty; fill it in or delete that line",
        STRICT,
    ),
    "a label that is 0.5": (
        {"train.jsonl": jsonl('{"sentence": "x", "label": 0.5}')},
        "train.jsonl, line 1: label '0.5' is not a class; expected a whole number or a name (no regression)",
    ),
    "a label that is a list": (
        {"train.jsonl": jsonl('{"sentence": "x", "label": [1]}')},
        "line 1: label is [1], expected a text or a whole number",
    ),
    "a sentence that is a number": ({"train.jsonl": jsonl('{"sentence": 5, "label": 1}')}, "line 1: sentence is 5, expected a text"),
    "a sentence that is a list": ({"train.jsonl": jsonl('{"sentence": ["x"], "label": 1}')}, "line 1: sentence is ['x'], expected a text"),
}


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_defect_is_one_line_that_names_the_place(defect, tmp_path):
    check_defect(tmp_path / "own", *DEFECTS[defect])


def table(**columns):
    return Table("file", columns, list(range(2, 2 + len(next(iter(columns.values()))))))


def test_single_texts_labels_and_groups():
    columns = text_columns(table(sentence=["a b", "c"], label=[1, "2"], domain=["x", "y"], id=["7", "8"]))
    assert columns.inputs.tolist() == ["a b", "c"]
    assert (columns.labels, columns.groups) == (["1", "2"], ["x", "y"])


def test_pairs_without_groups():
    columns = text_columns(table(sentence2=["b", "d"], sentence1=["a", "c"], label=["0", "1"]))
    assert columns.inputs.tolist() == [["a", "b"], ["c", "d"]]
    assert columns.groups is None


def test_labels_are_not_read_where_they_are_not_wanted():
    assert text_columns(table(sentence=["a"], label=[""]), labelled=False).labels == []


def test_columns_that_are_not_read_are_noted_once():
    assert unused_columns([table(sentence=["a"], id=["1"]), table(sentence=["b"], id=["2"], note=["x"])]) == ["columns not used: id, note"]
    assert unused_columns([table(sentence=["a"], label=["1"])]) == []


def test_a_value_in_a_message_is_short():
    assert len(short_repr("a" * 10_000)) == 60
    assert short_repr("two\nlines") == "'two\\nlines'"


def test_columns_of_other_names():
    names = ColumnNames(text="review", label="sentiment", group="shop")
    columns = text_columns(table(review=["a b", "c"], sentiment=[1.0, True], shop=["x", 7], sentence=["no", "no"]), names=names)
    assert columns.inputs.tolist() == ["a b", "c"]
    assert (columns.labels, columns.groups, columns.used) == (["1.0", "True"], ["x", "7"], ("review", "sentiment", "shop"))
    pairs = text_columns(table(q1=["a"], q2=["b"], label=["0"]), names=ColumnNames(text="q1", pair="q2"))
    assert pairs.inputs.tolist() == [["a", "b"]]


def test_rows_without_a_text_or_a_label_are_left_out_and_the_first_is_named():
    file = table(sentence=["a", " ", None, "d"], label=["0", "1", "1", float("nan")])
    columns = text_columns(file._replace(path=Path("train.csv")), strict=False)
    assert (columns.inputs.tolist(), columns.labels, columns.table.lines) == (["a"], ["0"], [2])
    assert columns.notes == (
        "3 of 4 rows of train.csv left out: they have no sentence or label (the first is line 3); strict=true refuses them",
    )


@pytest.mark.parametrize(
    ("header", "options"),
    [
        (",review,sentiment", "--text review --label sentiment"),
        ("id,Tweet Text,Category", "--text 'Tweet Text' --label Category"),
        ("a,b", "--text a --label COLUMN"),
        ("Text,label", "--text Text"),
    ],
)
def test_a_message_suggests_how_to_name_the_columns(header, options, tmp_path):
    rows = {"train.csv": f"{header}\n" + "x," * header.count(",") + "y\n"}
    check_defect(tmp_path / "own", rows, f"; name your own, as {options}, or rename them")


@pytest.mark.parametrize(("cells", "labelled"), [(["", "-1"], False), ([None, -1], False), (["-1", "0"], True), ([0], True)])
def test_a_table_has_labels_if_a_row_has_one(cells, labelled):
    assert has_labels(table(sentence=["a"] * len(cells), label=cells), USUAL) == labelled
    assert not has_labels(table(sentence=["a"]), USUAL)


def test_minus_one_is_a_label_where_the_training_file_has_it():
    test = table(sentence=["a", "b"], label=["-1", "-1"])
    assert has_labels(test, USUAL, table(sentence=["c", "d"], label=["-1", "1"]))
    assert not has_labels(test, USUAL, table(sentence=["c", "d"], label=["0", "1"]))
