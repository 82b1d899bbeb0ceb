"""Builders of the text data files, good and malformed, that the tests of this folder read."""

import pytest

from kd_env import tasks
from kd_env.errors import InputError

WORDS = ["amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "heath", "islet", "jetty"]


def lines(count=256, label=lambda i: i % 2, start=0):
    """As many different sentences, each with its label, tab-separated."""
    return [f"{WORDS[i % 10]} {WORDS[i // 10 % 10]} number {i}\t{label(i)}" for i in range(start, start + count)]


def tsv(*rows, header="sentence\tlabel", end="\n"):
    return end.join([header, *rows]) + end


def with_line_5(line, rows=None):
    """A ``.tsv`` of good rows, of which the one in line 5 is replaced; the header is line 1."""
    rows = lines() if rows is None else rows
    return tsv(*rows[:3], line, *rows[4:])


def csv(*rows):
    return tsv(*(row.replace("\t", ",") for row in rows or lines()), header="sentence,label")


def jsonl(*rows):
    return "\n".join(rows) + "\n"


def objects(count=256):
    return ['{{"sentence": "{}", "label": {}}}'.format(*row.split("\t")) for row in lines(count)]


GOOD = tsv(*lines())
TEST = tsv(*lines(64, start=1000))
PAIRS = tsv(*(f"{row.split(chr(9))[0]}\tother\t{i % 2}" for i, row in enumerate(lines())), header="sentence1\tsentence2\tlabel")
GROUPED = tsv(*(f"{row}\tg{i % 2}" for i, row in enumerate(lines())), header="sentence\tlabel\tgroup")
FOLDER = object()
"""In place of a file's content: a folder of that name."""


def write_folder(folder, files):
    """Make ``folder`` with files of this content, by name."""
    folder.mkdir()
    for name, content in files.items():
        if content is FOLDER:
            (folder / name).mkdir()
        else:
            (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def refusal(task, data_dir=None):
    """Load a task that must be refused in one line, and return that line."""
    with pytest.raises(InputError) as error:
        tasks.load(task, data_dir)
    assert "\n" not in str(error.value)
    return str(error.value)


def check_defect(folder, files, message, options=""):
    """Check that a folder of these files is refused with ``message``, in a short line that names the folder."""
    write_folder(folder, files)
    line = refusal(f"folder:{folder}{options}")
    assert message in line
    assert str(folder) in line or options
    assert len(line) < 400 + 2 * len(str(folder))


def write_texts(folder, name, count, groups="", label=True):
    """Write ``NAME.tsv`` of ``count`` texts, of class ``dull`` and ``fine`` in turn, and of ``groups`` in turn."""
    columns = ["sentence", *(["label"] if label else []), *(["group"] if groups else [])]
    rows = ["\t".join(columns)]
    for i in range(count):
        kind = ("dull", "fine")[i % 2]
        rows.append("\t".join([f"{name} {i} {kind}", *([kind] if label else []), *([groups[i % len(groups)]] if groups else [])]))
    (folder / f"{name}.tsv").write_text("\n".join(rows) + "\n")
