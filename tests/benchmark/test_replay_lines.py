"""What a replay says of a record that differs: short lines, and nothing about a student that was not taught to the end."""

import pyarrow
import pyarrow.parquet
import pytest

from kd_env.benchmark.replay import replay_record, trace_file
from kd_env.benchmark.run_trial import run_trial
from kd_env.benchmark.trial import Trial


@pytest.fixture
def record(tmp_path):
    return run_trial(Trial("digits", "most_confident", 2, settings={"updates": 12}), tmp_path)


def test_a_student_that_was_not_taught_to_the_end_is_not_compared(record, tmp_path):
    path = trace_file(tmp_path, record["trial"])
    table = pyarrow.parquet.read_table(path)
    ids = table.column("example_id").to_pylist()
    position = table.column_names.index("example_id")
    field = table.schema.field(position)
    ids[-1] += 1
    pyarrow.parquet.write_table(table.set_column(position, field, pyarrow.array(ids, field.type)), path)
    metric, stopped = replay_record(tmp_path, record | {"metric": "f1", "test": 0.0, "curve": []})
    assert metric.startswith("metric: recorded 'f1'")
    assert stopped == "update 11: the record taught other examples"


def test_long_curves_are_cut(record, tmp_path):
    curve = [{**point, "validation": 0.123456789, "train_loss": 0.123456789} for point in record["curve"]]
    lines = replay_record(tmp_path, record | {"curve": curve})
    assert [line.partition(" [")[0] for line in lines] == ["curve: recorded the validation", "curve: recorded the train_loss"]
    assert all("0.123456789, 0.123456789" in line and line.endswith("...") and len(line) < 220 for line in lines)
