"""Labels and groups of text files as numbers, and those that cannot be used."""

import pytest
from text_data import GOOD, GROUPED, TEST, check_defect, lines, tsv, with_line_5

from kd_env.errors import InputError
from kd_env.tasks.columns import text_columns
from kd_env.tasks.labels import class_names_of, normalised_labels, numbers_of, spelling_notes
from kd_env.tasks.tables import Table

NAMED = lines(label=lambda i: ["no", "yes"][i % 2])

DEFECTS = {
    "one class": ({"train.tsv": tsv(*lines(label=lambda i: 1))}, "train.tsv: every label is '1'; a classifier needs at least two classes"),
    "a label for each example": (
        {"train.tsv": tsv(*lines(label=lambda i: i))},
        "train.tsv: 256 labels in 256 examples; a label is a class",
    ),
    "a label of test that train lacks": (
        {"train.tsv": GOOD, "test.tsv": TEST + "amber\t2\n"},
        "test.tsv, line 66: label '2' is not among those of the training file (0, 1)",
    ),
    "a name of test that train lacks": (
        {"train.tsv": tsv(*NAMED), "test.tsv": tsv("amber\tmaybe")},
        "test.tsv, line 2: label 'maybe' is not among those of the training file (no, yes)",
    ),
    "names in test, numbers in train": (
        {"train.tsv": GOOD, "test.tsv": tsv("amber\tpositive")},
        "test.tsv, line 2: label 'positive', where the labels before it are whole numbers; use one kind",
    ),
    "a name among numbers": (
        {"train.tsv": with_line_5("amber\tpositive")},
        "train.tsv, line 5: label 'positive', where the labels before it are whole",
    ),
    "a number among names": (
        {"train.tsv": with_line_5("amber\t1", NAMED)},
        "train.tsv, line 5: label '1', where the labels before it are names; use one kind",
    ),
    "fractions": (
        {"train.tsv": tsv(*lines(label=lambda i: i / 10))},
        "train.tsv, line 3: label '0.1' is not a class; expected a whole number or",
    ),
    "a fraction": ({"train.tsv": with_line_5("amber\t0.5")}, "train.tsv, line 5: label '0.5' is not a class"),
    "not a number": ({"train.tsv": with_line_5("amber\tnan")}, "train.tsv, line 5: label 'nan' is not a class"),
    "an infinite label": ({"train.tsv": with_line_5("amber\t-inf")}, "train.tsv, line 5: label '-inf' is not a class"),
    "a huge label": (
        {"train.tsv": with_line_5(f"amber\t{10**30}")},
        "train.tsv, line 5: label '1000000000000000000000000000000' is too large",
    ),
    "a label of thousands of digits": ({"train.tsv": with_line_5(f"amber\t{'9' * 5000}")}, "train.tsv, line 5: label '9999"),
    "a group of test that train lacks": (
        {"train.tsv": GROUPED, "test.tsv": tsv("amber\t1\tg7", header="sentence\tlabel\tgroup")},
        "test.tsv, line 2: group 'g7' is not among those of the training file (g0, g1)",
    ),
}


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_defect_is_one_line_that_names_the_place(defect, tmp_path):
    check_defect(tmp_path / "own", *DEFECTS[defect])


def file(*labels):
    table = Table("file", {"sentence": ["text"] * len(labels), "label": list(labels)}, list(range(2, 2 + len(labels))))
    return text_columns(table)


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (("10", "2", "-1"), ["-1", "2", "10"]),
        (("01", "+1", " 1 ", "2"), ["1", "2"]),
        (("pos", "neg"), ["neg", "pos"]),
        ((" a ", "b", "a"), ["a", "b"]),
    ],
    ids=["integers in numeric order", "one spelling", "names in alphabetic order", "no blanks"],
)
def test_classes_of_the_training_file(labels, names):
    assert class_names_of(file(*labels)) == names


def test_labels_of_another_file_are_of_the_same_kind():
    assert normalised_labels(file("007", "-2"), ["0", "1"]) == ["7", "-2"]
    with pytest.raises(InputError, match="label '7', where the labels before it are names; use one kind"):
        normalised_labels(file("7"), ["no", "yes"])


def test_numbers_are_positions_among_the_known_names():
    assert numbers_of(file("b", "a").table, "label", ["b", "a", "b"], ["a", "b"]).tolist() == [1, 0, 1]


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (("1.0", "0.0", "1"), ["0", "1"]),
        (("True", "false", "TRUE"), ["false", "true"]),
        (("-1.", "1."), ["-1", "1"]),
        (("v1.0", "v2.0"), ["v1.0", "v2.0"]),
        (("1_1", "1_2"), ["1_1", "1_2"]),
    ],
    ids=["whole numbers with a point", "true and false", "negative", "names with a point", "what Python reads as a number"],
)
def test_classes_as_spreadsheets_and_pandas_write_them(labels, names):
    assert class_names_of(file(*labels)) == names


def test_labels_that_differ_in_case_alone_are_named_or_joined():
    labels = ("neg", "NEG ", "Neg", "pos", "very  good", "Very good", "pos")
    assert class_names_of(file(*labels, "neg", "pos", "pos", "pos", "pos")) == ["NEG", "Neg", "Very good", "neg", "pos", "very  good"]
    assert spelling_notes(["NEG", "Neg", "Very good", "neg", "pos", "very  good"]) == [
        "classes that differ in case, spacing or Unicode form alone: NEG, Neg, neg; Very good, very  good; "
        "ignore_case=true makes one class of them"
    ]
    assert "Unicode form alone: caf\u00e9, cafe\u0301;" in spelling_notes(["caf\u00e9", "cafe\u0301", "bar"])[0]
    assert spelling_notes(["neg", "pos"]) == []
    assert class_names_of(file(*labels), ignore_case=True) == ["neg", "pos", "very good"]
    assert normalised_labels(file("POS", "very Good"), ["neg", "pos"], ignore_case=True) == ["pos", "very good"]
