"""Small traces, written to parquet."""

import json

import pyarrow
import pyarrow.parquet
import pytest

TYPES = {"update": "int32", "slot": "int16", "example_id": "int32", "group": "int16", "teacher": "int16"}
TYPES |= {"weight": "float32", "reward": "float32", "student_ce": "float32"}


@pytest.fixture
def write(tmp_path):
    def write_rows(rows, groups=("a", "b"), teachers=("p", "q", "r"), drop=()):
        columns = {name: pyarrow.array([], kind) for name, kind in TYPES.items()}
        for name, place in {"update": 0, "slot": 1, "group": 2, "teacher": 3, "weight": 4}.items():
            columns[name] = pyarrow.array([row[place] for row in rows], TYPES[name])
        for name in ("example_id", "reward", "student_ce"):
            columns[name] = pyarrow.array([0] * len(rows), TYPES[name])
        table = pyarrow.table({name: column for name, column in columns.items() if name not in drop})
        metadata = {"group_names": json.dumps(groups), "teacher_names": json.dumps(teachers), "trial": "t-0"}
        pyarrow.parquet.write_table(table.replace_schema_metadata(metadata), tmp_path / "t.parquet")
        return tmp_path / "t.parquet"

    return write_rows
