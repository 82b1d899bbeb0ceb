"""A record can be checked: its actions taken again give it again, and whoever touched it is found out."""

import json
import shutil

import numpy as np
import pandas as pd
import pyarrow
import pyarrow.parquet
import pytest

from kd_env.analysis.selection_map import read_selection_map
from kd_env.analysis.traces import read_trace
from kd_env.benchmark import records
from kd_env.benchmark.replay import replay
from kd_env.benchmark.run_trial import run_trial
from kd_env.benchmark.trial import Trial
from kd_env.cli import invoke
from kd_env.errors import InputError

UPDATES = 12


def recorded(folder, policy, **settings):
    trial = Trial("digits", policy, 2, settings={"updates": UPDATES, **settings})
    records.append(folder, run_trial(trial, folder))
    return trial.id


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    folder = tmp_path_factory.mktemp("original")
    return folder, recorded(folder, "camkd")


@pytest.fixture
def copy(original, tmp_path):
    shutil.copytree(original[0], tmp_path / "copy")
    return tmp_path / "copy", original[1]


class Batch:
    """One random teacher for the batch, through ``granularity="batch"``."""

    access = "nothing"
    env_options = {"granularity": "batch", "action": "one"}

    def __init__(self, env, seed):
        self.rng = np.random.default_rng(seed)

    def act(self, observation):
        return self.rng.integers(4, size=1)


@pytest.mark.parametrize("read", [read_trace, read_selection_map])
@pytest.mark.parametrize("column", ["weight", "example_id", "teacher"])
def test_a_flipped_bit_in_a_trace_is_named(copy, read, column):
    """In the middle of the data of a column."""
    path = copy[0] / "traces" / f"{copy[1]}.parquet"
    row_group = pyarrow.parquet.ParquetFile(path).metadata.row_group(0)
    chunks = [row_group.column(number) for number in range(row_group.num_columns)]
    (chunk,) = [each for each in chunks if each.path_in_schema == column]
    content = bytearray(path.read_bytes())
    content[(chunk.dictionary_page_offset or chunk.data_page_offset) + chunk.total_compressed_size // 2] ^= 1
    path.write_bytes(content)
    if column == "example_id" and read is read_selection_map:
        read(path)  # it does not read this column
        return
    with pytest.raises(InputError, match=f"{copy[1]}.parquet.*run the trial again"):
        read(path)


@pytest.mark.parametrize(
    ("policy", "settings"),
    [
        ("camkd", {}),
        ("random_single", {"batch_size": 20}),
        ("reinforce", {"reward": "mixed", "kd_weight": 0.5}),
        ("gradient_credit", {"reward_labels": 64, "student": "mlp(width=8,dropout=0.3)"}),
        ("sb3:PPO(n_steps=64,batch_size=32,n_epochs=1)", {}),
        ("no_teacher", {"kd_weight": 0.5}),
        ("uniform_reward_ce", {"optimizer": "adamw(lr=0.01,warmup=0.3,decay=linear)"}),
        (f"{__name__}:Batch", {"batch_size": 16}),
        ("uniform", {"optimizer": "sgd(lr=1e30)"}),
        ("uniform", {"precision": "float64"}),
        ("mutual_learning", {}),
        ("mutual_learning", {"optimizer": "sgd(lr=1e30)"}),
        ("peer_ensemble", {"student": "mlp(width=8,dropout=0.3)", "num_students": 4, "kd_weight": 0.5}),
        ("camkd", {"knowledge": "response,peer(strength=0.5)", "num_students": 2, "batch_size": 16}),
    ],
)
def test_an_honest_record_is_equal(policy, settings, tmp_path):
    trial = recorded(tmp_path, policy, **settings)
    assert replay(tmp_path, trial) == []


def test_the_command_exits_with_0_when_equal(original, capsys):
    folder, trial = original
    assert invoke(["replay", str(folder), trial]) == 0
    assert capsys.readouterr().out == f"{trial}: equal\n"


def change_record(folder, change):
    (record,) = (json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines())
    change(record)
    (folder / "results.jsonl").write_text(json.dumps(record) + "\n")


def change_trace(folder, trial, change):
    path = folder / "traces" / f"{trial}.parquet"
    table = pyarrow.parquet.read_table(path)
    changed = change(table.to_pandas())
    rebuilt = pyarrow.Table.from_pandas(changed, schema=table.schema, preserve_index=False).replace_schema_metadata(table.schema.metadata)
    pyarrow.parquet.write_table(rebuilt, path)


RECORDS = {
    "a better test score": lambda r: r.update(test=r["test"] + 0.05),
    "a better validation score": lambda r: r.update(validation=1.0),
    "no test score": lambda r: r.update(test=None),
    "a better test score than a population's rounding allows": lambda r: (
        r["config"].update(population=2),
        r.update(test=r["test"] + 0.05),
    ),
    "no test score of one of a population": lambda r: (r["config"].update(population=2), r.update(test=None)),
    "it diverged": lambda r: r.update(diverged=True, test=None, validation=None),
    "another seed": lambda r: r.update(seed=3),
    "another selection": lambda r: r.update(selection_rate=r["selection_rate"][::-1]),
    "a shorter selection": lambda r: r.update(selection_rate=r["selection_rate"][:1]),
    "other teachers": lambda r: r["env"].update(teachers="digits/mixed/weak"),
    "fewer of the teachers": lambda r: r["env"].update(teachers="digits/experts/upright"),
    "another student": lambda r: r["env"].update(student="mlp(width=30)"),
    "a larger budget": lambda r: r["env"].update(updates=UPDATES + 1),
    "a smaller budget": lambda r: r["env"].update(updates=UPDATES - 1),
    "another optimizer": lambda r: r["env"].update(optimizer="sgd(lr=0.1)"),
    "another batch size": lambda r: r["env"].update(num_envs=31),
    "another temperature": lambda r: r["env"].update(temperature=3.0),
    "an unknown setting": lambda r: r["env"].update(magic=1),
    "another bank": lambda r: r.update(bank="0" * 64),
    "no env": lambda r: r.pop("env"),
    "no bank": lambda r: r.pop("bank"),
    "no selection": lambda r: r.update(selection_rate=None),
    "a longer selection": lambda r: r.update(selection_rate=r["selection_rate"] * 2),
    "another task": lambda r: r.update(task="domains"),
    "another pool": lambda r: r.update(pool="digits/mixed"),
    "another student's name": lambda r: r.update(student="mlp(width=99)"),
    "another number of updates": lambda r: r.update(updates=UPDATES * 2),
    "another teacher's name": lambda r: r["teachers"].reverse(),
    "another metric": lambda r: r.update(metric="f1"),
    "fewer reward labels": lambda r: r.update(reward_labels=8),
    "less access": lambda r: r.update(access="nothing"),
    "another policy": lambda r: r.update(policy="uniform"),
    "another spelling of the policy": lambda r: r.update(policy="camkd()"),
    "an unknown policy": lambda r: r.update(policy="best_of_all"),
    "a worse score on the reward split": lambda r: r.update(reward_split=r["reward_split"] - 0.05),
    "another validation on the way": lambda r: r["curve"][3].update(validation=1.0),
    "another loss on the way": lambda r: r["curve"][3].update(train_loss=0.01),
    "no point on the way": lambda r: r["curve"].pop(3),
    "no curve": lambda r: r["curve"].clear(),
    "more reward": lambda r: r.update(reward_sum=r["reward_sum"] + 1.0),
    "another entropy": lambda r: r.update(weight_entropy=0.0),
    "another name": lambda r: r.update(trial="digits-oracle-s0-00000000"),
}


@pytest.mark.parametrize("tampered", RECORDS)
def test_a_record_that_was_tampered_with_is_found_out(tampered, copy, capsys):
    folder, trial = copy
    change_record(folder, RECORDS[tampered])
    status = invoke(["replay", str(folder), trial])
    printed = capsys.readouterr()
    assert status in (1, 2)
    assert (printed.out if status == 1 else printed.err).strip()
    assert "Traceback" not in printed.err
    if status == 2:
        assert printed.err.count("\n") == 1


def test_a_policy_that_is_not_here_is_named_and_the_rest_is_compared(tmp_path):
    trial = recorded(tmp_path, "uniform")
    moved = trial.replace("uniform", "elsewhere-Agent")
    change_record(tmp_path, lambda r: r.update(policy="elsewhere:Agent", trial=moved))
    (tmp_path / "traces" / f"{trial}.parquet").rename(tmp_path / "traces" / f"{moved}.parquet")
    (line,) = replay(tmp_path, moved)
    assert line.startswith("policy: 'elsewhere:Agent' cannot be looked up, so its access is not compared (")


def put(frame, row, column, value):
    frame.loc[frame.index[row], column] = value
    return frame


TRACES = {
    "a weight": lambda t: put(t, 200, "weight", 0.9),
    "a weight in the last update": lambda t: put(t, -1, "weight", 0.9),
    "all weights of the last update": lambda t: t.assign(weight=t["weight"].where(t["update"] < UPDATES - 1, (t["teacher"] == 1) * 1.0)),
    "a teacher": lambda t: t.assign(teacher=(t["teacher"] + 1) % 4),
    "an example": lambda t: put(t, 100, "example_id", 7),
    "a loss": lambda t: put(t, 300, "student_ce", 0.0),
    "a row less": lambda t: t.drop(index=t.index[150]),
    "an update less": lambda t: t[t["update"] != 4],
    "the last update less": lambda t: t[t["update"] < UPDATES - 1],
    "an update more": lambda t: pd.concat([t, t[t["update"] == 3].assign(update=UPDATES)]),
    "a slot less": lambda t: t[~((t["update"] == 5) & (t["slot"] == 9))],
    "a teacher there is not": lambda t: put(t, 10, "teacher", 99),
    "a slot there is not": lambda t: put(t, 10, "slot", 99),
    "a negative slot": lambda t: put(t, 10, "slot", -40),
    "nothing": lambda t: t[:0],
}


@pytest.mark.parametrize("tampered", TRACES)
def test_a_trace_that_was_tampered_with_is_found_out(tampered, copy, capsys):
    folder, trial = copy
    change_trace(folder, trial, TRACES[tampered])
    assert invoke(["replay", str(folder), trial]) == 1
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("damage", ["torn", "not parquet", "another trace"])
def test_a_trace_that_cannot_be_read_is_one_line(damage, copy, capsys):
    folder, trial = copy
    path = folder / "traces" / f"{trial}.parquet"
    if damage == "torn":
        path.write_bytes(path.read_bytes()[:-30])
    elif damage == "not parquet":
        path.write_text("update,slot\n0,0\n")
    else:
        pyarrow.parquet.write_table(pyarrow.table({"x": [1]}), path)
    assert invoke(["replay", str(folder), trial]) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert str(path) in message


def test_a_trial_that_is_not_there_is_answered_with_the_nearest(original, capsys):
    folder, trial = original
    assert invoke(["replay", str(folder), trial[:-1] + "x"]) == 2
    assert f"did you mean '{trial}'?" in capsys.readouterr().err
    with pytest.raises(InputError, match="no records; name a folder"):
        replay(folder / "traces", trial)
