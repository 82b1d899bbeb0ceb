"""Read one file of examples, ``.tsv``, ``.csv`` or ``.jsonl`` in UTF-8, or ``.parquet``, into a :class:`Table` that knows each row's line.

``.tsv`` is raw text without quoting. Its lines end at a line feed alone (a carriage return before it is dropped), so that stray quotes and
control characters stay what they are. ``.csv`` is quoted as usual, with commas, or with the semicolons or tabs of its header line.
``.jsonl`` holds one object per line; a key that a line lacks is a missing value. Blank lines are skipped. :mod:`kd_env.tasks.columnar`
reads ``.parquet`` and folders of the library ``datasets``.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from kd_env.errors import InputError
from kd_env.paths import require_file

LONGEST_FIELD = 2**31 - 1
"""Characters of a field of ``.csv``; the csv module stops at 131,072 unless it is told."""


class Table(NamedTuple):
    """Columns of equal length, in the order of the file.

    Attributes:
        path: the file, for messages.
        columns: cells by column, as text; of JSON and Parquet, the values as they are, ``None`` where there is none.
        lines: the line of each row, counted from 1.
        left_out: number of rows left out because they have another number of fields than the header.
        unit: what ``lines`` counts, for messages.
        notes: what was assumed about the file.
    """

    path: Path
    columns: dict[str, list[Any]]
    lines: list[int]
    left_out: int = 0
    unit: str = "line"
    notes: tuple[str, ...] = ()

    def place(self, row: int) -> str:
        """Return ``FILE, line N``."""
        return f"{self.path}, {self.unit} {self.lines[row]}"

    def take(self, rows: Sequence[int]) -> Table:
        """Return the table of these rows alone."""
        columns = {name: [cells[row] for row in rows] for name, cells in self.columns.items()}
        return self._replace(columns=columns, lines=[self.lines[row] for row in rows])

    def require(self, names: Sequence[str], hint: str = "") -> None:
        """Check that the columns ``names`` are there.

        Args:
            hint: appended to the message.

        Raises:
            InputError: one is missing.
        """
        if missing := [name for name in names if name not in self.columns]:
            raise InputError(f"{self.path}: no column {missing[0]!r}, found {', '.join(self.columns)[:200]}{hint}")


def read_table(path: Path, header: Sequence[str] | None = None, leave_out_ragged: bool = False) -> Table:
    """Read a whole file.

    Args:
        header: names of the columns, for a file that has no header line.
        leave_out_ragged: leave out rows of the wrong length instead of refusing the file.

    Raises:
        InputError: the file cannot be read, is not UTF-8, or has a row that does not fit its header; it names the line.
    """
    content, notes = _content(path), []
    if path.suffix == ".csv" and (delimiter := _delimiter(content)) != ",":
        notes.append(f"{path.name} is read with {'tabs' if delimiter == chr(9) else 'semicolons'} between the fields, as in its first line")
    lines = READERS[path.suffix](path, content)
    names = list(header) if header is not None else [str(name).strip() for name in next(lines, (0, []))[1]]
    if not names:
        raise InputError(f"{path}: the file is empty; it needs a line that names its columns, and examples below it")
    if names.count("") > 1:  # spreadsheets and pandas write columns without a name
        names = [name or f"column {number}" for number, name in enumerate(names, start=1)]
    if len(set(names)) < len(names):
        duplicate = next(name for name in names if names.count(name) > 1)
        raise InputError(f"{path}, line 1: column {duplicate!r} is there twice; name every column once")
    rows, numbers, left_out = [], [], 0
    for number, cells in lines:
        if len(cells) == len(names):
            rows.append(cells)
            numbers.append(number)
        elif leave_out_ragged:
            left_out += 1
        else:
            fix = "fix that line" + (", or save the file as .csv if a text holds a tab" if path.suffix == ".tsv" and len(cells) > 1 else "")
            raise InputError(f"{path}, line {number}: {len(cells)} fields, expected {len(names)} ({', '.join(names)[:200]}); {fix}")
    if not rows:
        raise InputError(f"{path}: there is a header and no example below it; add some, or delete the file")
    columns = dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))
    return Table(path, columns, numbers, left_out, notes=tuple(notes))


def _content(path: Path) -> str:
    if path.is_dir():
        raise InputError(f"{path} is a folder; expected a file of examples")
    require_file(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); check that it exists and that you may read it") from None
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InputError(f"{path}, line {line}: byte 0x{content[error.start]:02x} is not UTF-8; save the file as UTF-8") from None
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise InputError(f"{path}, line {line}: a NUL character; delete it, or save the file as UTF-8 if it is UTF-16")
    return text


def _tsv(path: Path, content: str) -> Iterator[tuple[int, list[Any]]]:
    for number, line in enumerate(content.split("\n"), start=1):
        if line := line.removesuffix("\r"):
            yield number, line.split("\t")


def _delimiter(content: str) -> str:
    """Return the delimiter of the header line: a comma where there is one, else a semicolon or a tab."""
    header = content.lstrip("\r\n").partition("\n")[0]
    return next((character for character in ",;\t" if character in header), ",")


def _csv(path: Path, content: str) -> Iterator[tuple[int, list[Any]]]:
    csv.field_size_limit(LONGEST_FIELD)
    reader, first = csv.reader(io.StringIO(content, newline=""), strict=True, delimiter=_delimiter(content)), 1
    while True:
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise InputError(f"{path}, line {first}: {error}; double the quotes within a quoted field, and close each field") from None
        if cells is None:
            return
        if cells:
            yield first, cells
        first = reader.line_num + 1


def _jsonl(path: Path, content: str) -> Iterator[tuple[int, list[Any]]]:
    objects = []
    for number, line in enumerate(content.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            pairs = json.loads(line, object_pairs_hook=list)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path}, line {number}: not JSON ({error}); expected one object per line") from None
        if not line.lstrip().startswith("{"):
            raise InputError(f'{path}, line {number}: not a JSON object; expected {{"sentence": ..., "label": ...}}')
        row = dict(pairs)
        if len(row) < len(pairs):
            keys = [key for key, _ in pairs]
            duplicate = next(key for key in keys if keys.count(key) > 1)
            raise InputError(f"{path}, line {number}: column {duplicate!r} is there twice; name every column once")
        objects.append((number, row))
    names = dict.fromkeys(name for _, row in objects for name in row)
    if objects:
        yield objects[0][0], list(names)
    for number, row in objects:
        yield number, [row.get(name) for name in names]


READERS: dict[str, Callable[[Path, str], Iterator[tuple[int, list[Any]]]]] = {".tsv": _tsv, ".csv": _csv, ".jsonl": _jsonl}
"""Yield line numbers and cells, the header first; by the file's suffix."""
