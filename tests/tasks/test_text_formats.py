"""``folder:PATH``: how text files are read in each format, and what their labels may be."""

import pytest
from text_rows import ROWS, examples, load, write

from kd_env.errors import InputError


@pytest.fixture
def folder(tmp_path):
    return tmp_path


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
