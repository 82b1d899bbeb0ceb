"""The state of a run can be taken away and brought back, forked, and refused where it does not fit."""

import dataclasses
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from pairwise import pairwise
from safetensors.torch import save
from small_runs import digest, drive, start

from kd_env.errors import InputError
from kd_env.types import Decision

CASES = {
    "sgd": {"optimizer": "sgd(lr=0.05,warmup=0.3,decay=linear)"},
    "adam, dropout": {"student": "mlp(width=12,dropout=0.3)", "optimizer": "adam(lr=0.01,decay=linear)"},
    "adamw": {"optimizer": "adamw(lr=0.01,weight_decay=0.1,warmup=0.5)", "kd_weight": 0.5},
    "reward labels, dropout": {"student": "mlp(width=12,dropout=0.3)", "reward_ce": 0.5},
    "float64": {"precision": "float64"},
    "calibrated": {"calibrate_teachers": True},
    "tiny-vit, dropout": {"student": "tiny-vit(width=8,layers=1,dropout=0.2)"},
    "resnet8, BatchNorm": {"student": "resnet8(width=2)", "optimizer": "sgd(lr=0.05,weight_decay=0.0005,decay=cosine)"},
    "wrn, BatchNorm, dropout": {"student": "wrn(depth=10,widen=1,dropout=0.3)", "reward_ce": 0.5},
}


@pytest.mark.parametrize(("case", "observed", "at"), pairwise(CASES, [False, True], [0, 8]))
def test_a_restored_run_continues_to_the_last_bit(digits_data, case, observed, at):
    run = start(digits_data, seed=2, **CASES[case])
    undisturbed = start(digits_data, seed=2, **CASES[case])
    drive(run, at)
    drive(undisturbed, at)
    if observed:
        run.observe()
    state = run.snapshot()
    outcomes = drive(run, 7)
    assert drive(undisturbed, 7) == outcomes, "taking a snapshot changes nothing"
    other = start(digits_data, seed=9, **CASES[case])
    drive(other, 3)
    other.restore(state)
    assert other.snapshot() == state
    assert other.seeds.tolist() == [2]
    assert drive(other, 7) == outcomes
    assert digest(other) == digest(run) == digest(undisturbed)
    run.restore(state)  # back in time, too
    assert drive(run, 7) == outcomes
    assert digest(run) == digest(other)


def test_text_students_are_restored_too(text_data):
    run = start(text_data, student="tiny-bert(width=8,layers=1,dropout=0.2)", reward_labels=20)
    drive(run, 3)
    run.observe()
    state, outcomes = run.snapshot(), drive(run, 3)
    other = start(text_data, seed=1, student="tiny-bert(width=8,layers=1,dropout=0.2)", reward_labels=20)
    other.restore(state)
    assert drive(other, 3) == outcomes
    assert digest(other) == digest(run)


ELSEWHERE = """
import sys
sys.path[:0] = {folders!r}
import torch
from small_runs import digest, drive, start
from test_snapshot import CASES
from kd_env import tasks
from kd_env.distillation import EncodedTask
from kd_env.bank.bank import open_bank
from kd_env.teachers import load_pool

task = tasks.load("digits")
data = EncodedTask.of(task, open_bank(task, load_pool("digits/experts", task)))
torch.manual_seed(123)
run = start(data, seed=4, **CASES[{case!r}])
run.restore(open({path!r}, "rb").read())
drive(run, 6)
print(digest(run)[0])
"""


@pytest.mark.long
@pytest.mark.parametrize("case", ["reward labels, dropout"])
def test_another_process_continues_to_the_last_bit(digits_data, tmp_path, case):
    run = start(digits_data, **CASES[case])
    drive(run, 4)
    run.observe()
    (tmp_path / "state").write_bytes(run.snapshot())
    drive(run, 6)
    folder = os.path.dirname(__file__)
    program = ELSEWHERE.format(folders=[folder, os.path.dirname(folder)], case=case, path=str(tmp_path / "state"))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=120)
    assert done.stdout.split() == [digest(run)[0]], done.stderr


def test_forks_are_independent(digits_data):
    run = start(digits_data, student="mlp(width=12,dropout=0.3)")
    drive(run, 3)
    run.observe()
    before = digest(run)
    fork, other_fork = run.fork(), run.fork()
    outcomes = drive(fork, 4)
    assert digest(run) == before
    assert digest(other_fork) == before
    other_fork.apply(Decision.response(torch.zeros(8, 4), 1.0, 2.0))
    assert drive(run, 4) == outcomes
    assert digest(run) == digest(fork)
    assert digest(other_fork)[0] != digest(run)[0]


def test_a_finished_run_can_be_restored(digits_data):
    run = start(digits_data, updates=2)
    drive(run, 2)
    other = start(digits_data, updates=2)
    other.restore(run.snapshot())
    assert other.done.tolist() == [True]
    assert [value.tolist() for value in other.validate()] == [value.tolist() for value in run.validate()]


def test_a_snapshot_is_tensors_and_json_without_pickle(digits_data):
    run = start(digits_data, 3, student="mlp(width=12,dropout=0.3)")
    drive(run, 2)
    state = run.snapshot()
    length = int.from_bytes(state[:8], "little")
    header = json.loads(state[8 : 8 + length])
    types = {"student": {"F32"}, "dropout": {"U8"}, "state": {"I64", "BOOL", "U8"}}
    for name, entry in header.items():
        assert entry["dtype"] in types[name.partition(".")[0]], name
    assert {name for name in header if name.startswith("state.")} == {f"state.{name}" for name in run.state.tensors()}
    assert 8 + length + max(entry["data_offsets"][1] for entry in header.values()) == len(state), "and nothing after them"
    begin, end = header["state"]["data_offsets"]
    content = json.loads(state[8 + length + begin : 8 + length + end])
    assert content.keys() == {"identity", "observed", "checksum", "channels_last"}
    assert content["identity"]["student"] == "mlp(width=12,dropout=0.3)"


def test_bytes_that_are_no_snapshot_are_refused(digits_data):
    run = start(digits_data)
    drive(run, 2)
    before, whole = digest(run), run.snapshot()
    wrong = [b"", b"x", b"garbage" * 100, whole[: len(whole) // 2], whole[:-1], whole[1:], whole + b"x"]
    wrong += [save({"a": torch.zeros(2)}), save({"state": torch.zeros(3, dtype=torch.uint8)})]
    wrong += [save({"state": torch.frombuffer(bytearray(text), dtype=torch.uint8)}) for text in (b"{}", b"[]", b'{"identity": 3}')]
    for state in wrong:
        with pytest.raises(InputError, match=r"not a snapshot; give what snapshot\(\) returned"):
            run.restore(state)
    assert digest(run) == before


@pytest.mark.parametrize(
    ("keywords", "differs"),
    [
        ({"temperature": 3.0}, "temperature"),
        ({"student": "mlp(width=13)"}, "student"),
        ({"batch_size": 9, "kd_weight": 0.5}, "batch_size, kd_weight"),
    ],
)
def test_a_snapshot_of_other_settings_is_refused_by_name(digits_data, keywords, differs):
    state = start(digits_data).snapshot()
    with pytest.raises(InputError, match=f"of another run; these differ: {differs}$"):
        start(digits_data, **keywords).restore(state)


def test_a_snapshot_of_another_task_or_pool_is_refused(digits_data, text_data):
    run = start(digits_data)
    state = run.snapshot()
    with pytest.raises(InputError, match="these differ: bank, optimizer, student, task"):
        start(text_data).restore(state)
    labels = np.roll(digits_data.task.train.labels, 1)
    task = dataclasses.replace(digits_data.task, train=dataclasses.replace(digits_data.task.train, labels=labels))
    with pytest.raises(InputError, match=r"these differ: task$"):
        start(dataclasses.replace(digits_data, task=task)).restore(state)


def test_a_lone_run_is_its_own_member(digits_data):
    run = start(digits_data)
    assert run.of_student(0) is run
