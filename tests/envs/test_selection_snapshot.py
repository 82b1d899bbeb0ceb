"""The whole state of an environment can be taken away and brought back: run, meter, exploration, reward labels."""

import itertools
import os
import subprocess
import sys

import numpy as np
import pytest
from pairwise import chosen
from selections import advance, select, state_of

from kd_env.errors import InputError

DROPOUT = {"student": "mlp(width=12,dropout=0.3)"}
CASES = {
    "redrawn measurements": {"reward_examples": 20, "measure": "metric"},
    "now and then": {"optimizer": "adamw(lr=0.01,weight_decay=0.1,warmup=0.5)", "kd_weight": 0.5, "reward_every": 3},
    "stale credit, dropout": {**DROPOUT, "credit": "first_order", "credit_refresh": 3, "reward_examples": 20},
    "stale head credit": {"credit": "head", "credit_refresh": 4},
    "reward labels, dropout": {**DROPOUT, "reward_ce": 0.5},
    "running mean, dropout": {**DROPOUT, "credit": "difference(examples=8,decay=0.9)", "credit_refresh": 2},
    "mixed reward": {"reward": "mixed", "reward_every": 2},
    "float64": {"precision": "float64", "credit": "first_order"},
    "phases, bonus": {
        "action": "hard",
        "granularity": "batch",
        "exploration_bonus": 0.5,
        "updates_per_phase": 2,
        "knowledge": "response,hint",
    },
}


@pytest.mark.parametrize(
    ("case", "observed", "at"),
    chosen(
        itertools.product(CASES, [False, True], [0, 8]),
        [
            *((case, number % 2 == 0, 8) for number, case in enumerate(CASES)),
            ("redrawn measurements", False, 0),
            ("stale credit, dropout", True, 0),
            ("phases, bonus", False, 0),
        ],
    ),
)
def test_a_restored_selection_continues_to_the_last_bit(digits_data, case, observed, at):
    selection, undisturbed = (select(digits_data, 2, **CASES[case]) for _ in range(2))
    advance(selection, at)
    advance(undisturbed, at)
    if observed:
        selection.distillation.observe()
    state = selection.snapshot(np.random.default_rng(0))
    steps = advance(selection, 7)
    assert repr(advance(undisturbed, 7)) == repr(steps), "taking a snapshot changes nothing"
    other = select(digits_data, 9, **CASES[case])
    advance(other, 3)
    generator = np.random.default_rng(1)
    other.restore(state, generator)
    assert other.snapshot(generator) == state
    assert other.distillation.seeds.tolist() == [2]
    assert repr(advance(other, 7)) == repr(steps)
    assert state_of(other) == state_of(selection) == state_of(undisturbed)
    selection.restore(state, np.random.default_rng(1))  # back in time, too
    assert repr(advance(selection, 7)) == repr(steps)
    assert state_of(selection) == state_of(other)


POPULATIONS = {
    "metric, mixed": ("digits_data", {"optimizer": "sgd(lr=0.05,decay=linear)", "measure": "metric", "reward": "mixed"}),
    "stale first-order credit": ("digits_data", {"credit": "first_order", "credit_refresh": 7, "optimizer": "sgd(lr=0.05)"}),
    "first-order credit, dropout": ("digits_data", {**DROPOUT, "credit": "first_order", "credit_refresh": 3, "reward_examples": 20}),
    "running mean": ("digits_data", {**DROPOUT, "credit": "difference(examples=8,decay=0.9)", "credit_refresh": 2}),
    "bonus": ("digits_data", {"action": "soft", "granularity": "batch", "exploration_bonus": 0.5, "knowledge": "response,hint"}),
    "text, labels": ("text_data", {"kd_weight": 0.5, "student": "tiny-bert(width=8,layers=1)"}),
}


def out_of_phase(data, case, seed):
    """Three students at different updates, one of them measured and one not; each has reward labels of its own."""
    selection = select(data, seed, label_seeds=[seed, seed + 1, seed + 2], num_students=3, **POPULATIONS[case][1])
    advance(selection, 4)
    selection.reset_student(1, 60)
    advance(selection, 2)
    selection.reset_student(0, 61)
    return selection


@pytest.mark.long
@pytest.mark.parametrize(
    ("case", "observed"),
    chosen(
        itertools.product(POPULATIONS, [False, True]),
        [(case, number % 2 == 0) for number, case in enumerate(POPULATIONS)],
    ),
)
def test_a_restored_population_continues_to_the_last_bit(request, case, observed):
    data = request.getfixturevalue(POPULATIONS[case][0])
    selection, undisturbed = (out_of_phase(data, case, 2) for _ in range(2))
    if observed:
        selection.distillation.observe()
    state = selection.snapshot(np.random.default_rng(0))
    steps = advance(selection, 6)
    assert repr(advance(undisturbed, 6)) == repr(steps), "taking a snapshot changes nothing"
    other = out_of_phase(data, case, 30)
    generator = np.random.default_rng(1)
    other.restore(state, generator)
    assert other.snapshot(generator) == state
    assert other.distillation.seeds.tolist()[:2] == [61, 60]
    assert other.distillation.update.tolist()[:2] == [0, 2]
    assert other.distillation.reward_split.label_seeds == other.label_seeds == [2, 3, 4]
    fork = other.fork()
    assert repr(advance(other, 6)) == repr(steps)
    assert state_of(other) == state_of(selection) == state_of(undisturbed)
    fork.reset_student(0, 5)
    advance(fork, 2)
    assert state_of(other) == state_of(selection), "forks are independent"
    selection.restore(state, np.random.default_rng(1))  # back in time, too
    assert repr(advance(selection, 6)) == repr(steps)
    assert state_of(selection) == state_of(other)


ELSEWHERE = """
import sys
sys.path[:0] = {folders!r}
import numpy as np
import torch
from selections import advance
from test_selection_snapshot import out_of_phase
from kd_env import tasks
from kd_env.distillation import EncodedTask
from kd_env.bank.bank import open_bank
from kd_env.teachers import load_pool

task = tasks.load("digits")
data = EncodedTask.of(task, open_bank(task, load_pool("digits/experts", task)))
torch.manual_seed(123)
selection = out_of_phase(data, {case!r}, 40)
selection.restore(open({path!r}, "rb").read(), np.random.default_rng(1))
print(advance(selection, 6))
"""


@pytest.mark.slow  # as a fast test of a run alone: tests/distillation/test_snapshot.py
def test_another_process_continues_to_the_last_bit(digits_data, tmp_path):
    case = "first-order credit, dropout"
    selection = out_of_phase(digits_data, case, 3)
    selection.distillation.observe()
    (tmp_path / "state").write_bytes(selection.snapshot(np.random.default_rng(0)))
    steps = advance(selection, 6)
    folder = os.path.dirname(__file__)
    program = ELSEWHERE.format(folders=[folder, os.path.dirname(folder)], case=case, path=str(tmp_path / "state"))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=120)
    assert done.stdout.strip() == repr(steps), done.stderr


@pytest.mark.parametrize("case", ["stale credit, dropout", "reward labels, dropout", "redrawn measurements", "phases, bonus"])
def test_forks_are_independent(digits_data, case):
    selection = select(digits_data, **CASES[case])
    advance(selection, 3)
    selection.distillation.observe()
    selection.listeners.append(pytest.fail)
    before = state_of(selection)
    fork, other_fork = selection.fork(), selection.fork()
    steps = advance(fork, 4)
    assert state_of(selection) == before
    assert state_of(other_fork) == before
    other_fork.advance(np.zeros((other_fork.num_slots, other_fork.action_kind.size)))
    selection.listeners.clear()
    assert repr(advance(selection, 4)) == repr(steps)
    assert state_of(selection) == state_of(fork)
    assert state_of(other_fork) != state_of(selection)


@pytest.mark.parametrize(
    ("keywords", "differs"),
    [
        ({"temperature": 3.0, "kd_weight": 0.5}, "kd_weight, temperature"),
        ({"reward": "mixed"}, "reward"),
        ({"action": "one", "observation": "cls"}, "action, observation"),
    ],
)
def test_a_snapshot_of_other_settings_is_refused_by_name(digits_data, keywords, differs):
    state, other = select(digits_data).snapshot(np.random.default_rng(0)), select(digits_data, **keywords)
    before = state_of(other)
    with pytest.raises(InputError, match=f"of another run; these differ: {differs}$"):
        other.restore(state, np.random.default_rng(1))
    with pytest.raises(InputError, match=r"not a snapshot; give what snapshot\(\) returned"):
        other.restore(state[:-1], np.random.default_rng(1))
    assert state_of(other) == before
