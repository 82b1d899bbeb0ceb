"""Hand-made traces of a report."""

import json

import numpy as np
import pyarrow
import pyarrow.parquet


def write_trace(path, groups=("even", "odd"), teaches=True):
    """Teacher b % 2 has slot b, or no teacher has any."""
    rows = [(u, b, u * 4 + b, b % 2, b % 2 if teaches else -1, float(teaches), 0.1, 1.0) for u in range(30) for b in range(4)]
    names = ["update", "slot", "example_id", "group", "teacher", "weight", "reward", "student_ce"]
    table = pyarrow.table([np.array(column) for column in zip(*rows, strict=True)], names=names)
    path.parent.mkdir(exist_ok=True)
    pyarrow.parquet.write_table(table.replace_schema_metadata({"group_names": json.dumps(groups), "teacher_names": '["p", "q"]'}), path)
