"""Reading a file: what each format keeps, and defects that are named with the line."""

import os
import shutil

import pytest
from text_data import FOLDER, GOOD, PAIRS, TEST, check_defect, csv, jsonl, lines, objects, refusal, tsv, with_line_5, write_folder

from kd_env.errors import InputError
from kd_env.tasks.tables import read_table

DEFECTS = {
    "a folder called train.tsv": ({"train.tsv": FOLDER}, "train.tsv is a folder; expected a file of examples"),
    "an empty file": ({"train.tsv": ""}, "train.tsv: the file is empty; it needs a line that names its columns"),
    "only blank lines": ({"train.tsv": "\n\n\n"}, "train.tsv: the file is empty"),
    "an empty jsonl": ({"train.jsonl": ""}, "train.jsonl: the file is empty"),
    "only a header": ({"train.tsv": "sentence\tlabel\n"}, "train.tsv: there is a header and no example below it"),
    "only a header, csv": ({"train.csv": "sentence,label\n"}, "train.csv: there is a header and no example below it"),
    "an empty test file": ({"train.tsv": GOOD, "test.tsv": ""}, "test.tsv: the file is empty"),
    "a column twice": (
        {"train.tsv": tsv(*(f"{row}\t1" for row in lines()), header="sentence\tlabel\tlabel")},
        "line 1: column 'label' is there twice",
    ),
    "a key twice": (
        {"train.jsonl": jsonl('{"sentence": "x", "label": 0, "label": 1}')},
        "train.jsonl, line 1: column 'label' is there twice",
    ),
    "too few fields": ({"train.tsv": with_line_5("amber")}, "train.tsv, line 5: 1 fields, expected 2 (sentence, label); fix that line"),
    "too many fields": ({"train.tsv": with_line_5("amber\tbirch\t1")}, "train.tsv, line 5: 3 fields, expected 2"),
    "too many fields, csv": ({"train.csv": csv(*lines(3), "well, then\t1")}, "train.csv, line 5: 3 fields, expected 2"),
    "a torn last line": ({"train.tsv": GOOD[:-3]}, "train.tsv, line 257: 1 fields, expected 2"),
    "latin-1": (
        {"train.tsv": with_line_5("caf\u00e9\t1").encode("latin-1")},
        "train.tsv, line 5: byte 0xe9 is not UTF-8; save the file as UTF-8",
    ),
    "utf-16": ({"train.tsv": GOOD.encode("utf-16")}, "train.tsv, line 1: byte 0xff is not UTF-8"),
    "utf-16 without a mark": (
        {"train.tsv": GOOD.encode("utf-16-le")},
        "train.tsv, line 1: a NUL character; delete it, or save the file as UTF-8",
    ),
    "a NUL character": ({"train.tsv": with_line_5("am\0ber\t1")}, "train.tsv, line 5: a NUL character"),
    "no JSON": ({"train.jsonl": jsonl(*objects(2), '{"sentence": "x", "label": }')}, "train.jsonl, line 3: not JSON (Expecting value"),
    "single quotes": ({"train.jsonl": jsonl("{'sentence': 'x', 'label': 1}")}, "train.jsonl, line 1: not JSON"),
    "a JSON list": ({"train.jsonl": jsonl('["x", 1]')}, "train.jsonl, line 1: not a JSON object"),
    "one JSON list of all": ({"train.jsonl": "[\n" + ",\n".join(objects()) + "\n]"}, "train.jsonl, line 1: not JSON"),
    "a JSON number": ({"train.jsonl": jsonl(*objects(2), "7")}, "train.jsonl, line 3: not a JSON object"),
    "another key": (
        {"train.jsonl": jsonl(*objects(2), '{"text": "x", "label": 1}')},
        "train.jsonl, line 3: sentence is empty",
        "(strict=true)",
    ),
    "a key too few": (
        {"train.jsonl": jsonl(*objects(2), '{"sentence": "x"}')},
        "train.jsonl, line 3: label is empty",
        "(strict=true)",
    ),
    "brackets without end": ({"train.jsonl": jsonl("[" * 100_000)}, "train.jsonl, line 1: not JSON"),
    "a quote that is not closed": (
        {"train.csv": csv(*lines(3), '"amber\t1')},
        "train.csv, line 5: unexpected end of data; double the quotes within",
    ),
    "text behind a quote": ({"train.csv": csv(*lines(3), '"amber" birch\t1')}, "train.csv, line 5: ',' expected after '\"'"),
    "a shard too few": ({"train-00000-of-00002.parquet": "", "data.csv": ""}, "1 of 2 shards train-*.parquet; copy the missing ones"),
    "no Parquet": ({"train.parquet": "PAR1"}, "train.parquet cannot be read as Parquet ("),
}


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_defect_is_one_line_that_names_the_place(defect, tmp_path):
    check_defect(tmp_path / "own", *DEFECTS[defect])


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read anything")
def test_a_file_that_may_not_be_read(tmp_path):
    folder = write_folder(tmp_path / "own", {"train.tsv": GOOD})
    (folder / "train.tsv").chmod(0)
    assert "train.tsv cannot be read (Permission denied); check that it exists and that you may read it" in refusal(f"folder:{folder}")
    shutil.rmtree(folder)


def test_cells_lines_and_places(tmp_path):
    path = tmp_path / "file.tsv"
    path.write_text("a\tb\n\n1\tx\n2\ty\n")
    table = read_table(path)
    assert table.columns == {"a": ["1", "2"], "b": ["x", "y"]}
    assert table.lines == [3, 4]
    assert table.place(1) == f"{path}, line 4"
    with pytest.raises(InputError, match=r"file\.tsv: no column 'c', found a, b; which\?$"):
        table.require(("a", "c", "d"), "; which?")
    table.require(("a", "b"))


def test_json_values_stay_as_they_are(tmp_path):
    path = tmp_path / "file.jsonl"
    path.write_text('{"a": 1, "b": null}\n{"b": [2], "a": "x"}\n')
    assert read_table(path).columns == {"a": [1, "x"], "b": [None, [2]]}


def test_a_header_can_be_given_and_ragged_rows_left_out(tmp_path):
    path = tmp_path / "file.tsv"
    path.write_text("1\tx\n2\n3\ty\tz\n4\tw\n")
    table = read_table(path, ("a", "b"), leave_out_ragged=True)
    assert table.columns == {"a": ["1", "4"], "b": ["x", "w"]}
    assert (table.lines, table.left_out) == ([1, 4], 2)
    with pytest.raises(InputError, match=r"file\.tsv, line 2: 1 fields, expected 2 \(a, b\)"):
        read_table(path, ("a", "b"))


@pytest.mark.parametrize("name", ["train.tsv", "test.tsv"])
def test_good_files_have_no_defect(name, tmp_path):
    folder = write_folder(tmp_path / "own", {"train.tsv": GOOD, "test.tsv": TEST, "pairs.tsv": PAIRS})
    assert len(read_table(folder / name).lines) == {"train.tsv": 256, "test.tsv": 64}[name]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_a_csv_is_read_with_the_separator_of_its_header(separator, tmp_path):
    path = tmp_path / "file.csv"
    path.write_text(f'a{separator}b\n"x{separator}y"{separator}1\n')
    table = read_table(path)
    assert table.columns == {"a": [f"x{separator}y"], "b": ["1"]}
    names = {",": (), ";": ("semicolons",), "\t": ("tabs",)}[separator]
    assert table.notes == tuple(f"file.csv is read with {name} between the fields, as in its first line" for name in names)


def test_a_field_of_a_csv_may_be_long(tmp_path):
    path = tmp_path / "file.csv"
    path.write_text(f"a,b\n{'x' * 300_000},1\n")
    assert len(read_table(path).columns["a"][0]) == 300_000


def test_a_key_that_a_line_lacks_is_a_missing_value_and_columns_without_a_name_are_numbered(tmp_path):
    path = tmp_path / "file.jsonl"
    path.write_text('{"a": 1}\n{"b": 2, "a": null}\n')
    assert read_table(path).columns == {"a": [1, None], "b": [None, 2]}
    path = tmp_path / "file.csv"
    path.write_text(",,a\n0,1,x\n")
    assert list(read_table(path).columns) == ["column 1", "column 2", "a"]
