"""Records of policies of the other environments that were touched: replay finds it out, in a line."""

import json

import pyarrow
import pyarrow.parquet
import pytest
from other_environments import JOINT, UPDATES, run_case

from kd_env.benchmark.replay import replay
from kd_env.cli import invoke


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    """Records of a soft and of a joint policy."""
    finished = {}
    for policy, case in (("Soft", "soft"), ("Everything", "joint")):
        folder, record = run_case(case, tmp_path_factory.mktemp("results"))
        finished[policy] = folder, record["trial"]
    return finished


def changed(folder, trial, target, change):
    """A copy of a results folder with another trace."""
    (target / "traces").mkdir()
    (target / "results.jsonl").write_bytes((folder / "results.jsonl").read_bytes())
    table = pyarrow.parquet.read_table(folder / "traces" / f"{trial}.parquet")
    rows = change(table.to_pylist())
    other = pyarrow.Table.from_pylist(rows, schema=None if any(rows[0].keys() ^ set(table.column_names)) else table.schema)
    pyarrow.parquet.write_table(other.replace_schema_metadata(table.schema.metadata), target / "traces" / f"{trial}.parquet")


def put(update, column, change, which=lambda row: True, row=0):
    """Change one row of an update."""

    def at(rows):
        chosen = [entry for entry in rows if entry["update"] == update and which(entry)][row]
        chosen[column] = change(chosen[column])
        return rows

    return at


def taught(row):
    return row["teacher"] >= 0


def everywhere(column, change):
    return lambda rows: [{**row, column: change(row[column])} for row in rows]


def flipped(gates):
    return [1.0 - gates[0], *gates[1:]]


TAMPERED = {
    "a strength of knowledge": ("Soft", put(4, "gates", flipped)),
    "a strength of knowledge in the last row of a decision": ("Soft", put(4, "gates", flipped, row=-1)),
    "the strengths of an update": (
        "Soft",
        lambda rows: [{**r, "gates": flipped(r["gates"]) if r["update"] == 4 else r["gates"]} for r in rows],
    ),
    "a strength of knowledge by little": ("Soft", put(4, "gates", lambda gates: [gates[0] + 1e-3, *gates[1:]])),
    "another order of the knowledge": ("Soft", everywhere("gates", lambda gates: gates[::-1])),
    "knowledge left out": ("Soft", everywhere("gates", lambda gates: gates[:-1])),
    "knowledge left out once": ("Soft", put(4, "gates", lambda gates: gates[:-1])),
    "knowledge there is not": ("Soft", everywhere("gates", lambda gates: [*gates, 1.0])),
    "no strengths": ("Soft", lambda rows: [{name: value for name, value in row.items() if name != "gates"} for row in rows]),
    "strengths that are none": ("Soft", everywhere("gates", lambda gates: [float("nan")] * len(gates))),
    "missing strengths": ("Soft", put(4, "gates", lambda gates: None)),
    "a strength where there was none": ("Soft", lambda rows: [{**row, "kd_weight": 0.5} for row in rows]),
    "one number for all knowledge": ("Soft", lambda rows: [{**row, "gates": row["gates"][0], "more": 0} for row in rows]),
    "a gate": ("Everything", put(4, "gates", flipped, taught)),
    "a gate in the last row of a decision": ("Everything", put(4, "gates", flipped, taught, row=-1)),
    "a strength": ("Everything", put(4, "kd_weight", lambda value: 1.0 - value, taught)),
    "a strength in the last row of a decision": ("Everything", put(4, "kd_weight", lambda value: 1.0 - value, taught, row=-1)),
    "a temperature": ("Everything", put(4, "temperature_scale", lambda value: 2.0 * value, taught)),
    "all temperatures": ("Everything", everywhere("temperature_scale", lambda value: 1.0)),
    "all strengths of the last update": (
        "Everything",
        lambda rows: [{**row, "kd_weight": 0.0 if row["update"] == UPDATES - 1 else row["kd_weight"]} for row in rows],
    ),
    "no strength": ("Everything", lambda rows: [{name: value for name, value in row.items() if name != "kd_weight"} for row in rows]),
    "no temperature": (
        "Everything",
        lambda rows: [{name: value for name, value in row.items() if name != "temperature_scale"} for row in rows],
    ),
    "a teacher who abstained": ("Everything", put(4, "teacher", lambda value: 2, lambda row: row["teacher"] == -1)),
}


@pytest.mark.parametrize("what", TAMPERED)
def test_a_trace_that_was_tampered_with_is_found_out(what, originals, tmp_path, capsys):
    policy, change = TAMPERED[what]
    folder, trial = originals[policy]
    changed(folder, trial, tmp_path, change)
    status = invoke(["replay", str(tmp_path), trial])
    printed = capsys.readouterr()
    assert status in (1, 2), printed.out
    assert (printed.out if status == 1 else printed.err).strip()
    assert "Traceback" not in printed.err
    if status == 2:
        assert printed.err.count("\n") == 1


@pytest.mark.parametrize("policy", ["Soft", "Everything"])
def test_a_copied_trace_is_still_equal(policy, originals, tmp_path):
    """What the test above does to a trace is not itself what is found."""
    folder, trial = originals[policy]
    changed(folder, trial, tmp_path, lambda rows: rows)
    assert replay(tmp_path, trial) == []


@pytest.mark.parametrize("name", ["id", "knowledge", "kd_weight", "temperature"])
def test_a_record_of_another_setting_is_found_out(name, originals, tmp_path, capsys):
    folder, trial = originals["Soft"]
    changed(folder, trial, tmp_path, lambda rows: rows)
    record = json.loads((tmp_path / "results.jsonl").read_text())
    others = {"id": JOINT, "knowledge": "response,relation,layer", "kd_weight": 1.0, "temperature": 3.0}
    assert record["env"].get(name) != others[name]
    record["env"][name] = others[name]
    (tmp_path / "results.jsonl").write_text(json.dumps(record) + "\n")
    assert invoke(["replay", str(tmp_path), trial]) in (1, 2)
    assert "Traceback" not in capsys.readouterr().err
