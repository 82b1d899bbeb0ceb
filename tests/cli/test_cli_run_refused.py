"""``kd-env run``: bad input is refused in one line, and nothing is left behind."""

import dataclasses
import os

import pytest
import torch
from commands import TEACHER, error_line, run

from kd_env.cli import invoke
from kd_env.tasks import Defaults
from kd_env.tasks.digits import load as load_digits


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


def not_a_task():
    return 3


def failing():
    raise TypeError("a mistake\nof my own")


def needs_an_option(size):
    return load_digits()


def with_former_name():
    return dataclasses.replace(load_digits(), defaults=Defaults("digits/experts", "mlp", 1, strength=0.5, temperature=2.0))


class NoAct:
    def __init__(self, env, seed):
        pass


class NeedsMore:
    def __init__(self, env, seed, size):
        pass


HERE = __name__

BAD = {
    "unknown task": (run(task="digit"), "unknown task 'digit'; did you mean 'digits'?"),
    "empty task": (run(task=""), "unknown task ''; known: "),
    "a task option it does not have": (run(task="digits(size=3)"), "task 'digits(size=3)': got an unexpected keyword argument 'size'"),
    "a task option out of range": (
        run(task="domains(difficulty=1.5)"),
        "task domains(difficulty=1.5): expected a number of at least 0, below 1",
    ),
    "brackets that are not closed": (run(task="digits("), "'digits(': expected name(key=value,...)"),
    "a value without a name": (run(task="domains(3)"), "'3': expected key=value"),
    "a task module that is not there": (run(task="no_such:load"), "task 'no_such:load' cannot be imported"),
    "a task function that is not there": (run(task=f"{HERE}:nothing"), "has no attribute 'nothing'"),
    "a task that is no task": (run(task=f"{HERE}:not_a_task"), f"task '{HERE}:not_a_task': returned int, expected a kd_env.tasks.Task"),
    "a task that fails": (run(task=f"{HERE}:failing"), f"task '{HERE}:failing': TypeError: a mistake of my own ({__file__}, line "),
    "a task that needs an option": (run(task=f"{HERE}:needs_an_option"), "missing a required argument: 'size'"),
    "a task that is a module": (run(task="os:path"), "task 'os:path': "),
    "a task that is a number": (run(task="math:pi"), "task 'math:pi': 3.14"),
    "unknown policy": (run(policy="unifrom"), "unknown policy 'unifrom'; did you mean 'uniform'?"),
    "empty policy": (run(policy=""), "unknown policy ''"),
    "a policy option it does not have": (run(policy="reinforce(windows=2)"), "unexpected keyword argument 'windows'; options: "),
    "a policy option given twice": (run(policy="reinforce(window=2,window=3)"), "window is given twice, as 2 and 3; give it once"),
    "a policy option out of range": (run(policy="reinforce(window=0)"), "reinforce(window=0): expected a whole number of at least 1"),
    "unknown algorithm": (run(policy="sb3:PPPO"), "unknown Stable-Baselines3 algorithm 'PPPO'; did you mean 'PPO'?"),
    "unknown hyperparameter": (run(policy="sb3:PPO(n_step=4)"), "sb3:PPO: no hyperparameter 'n_step'; known: "),
    "a single teacher there is not": (run(policy="single:4"), "single:4: expected 0..3 or one of upright, inverted"),
    "a single teacher of no number": (run(policy="single:²"), "single:²: expected 0..3"),
    "a policy that is not there": (run(policy=f"{HERE}:Nobody"), f"policy '{HERE}:Nobody' cannot be imported"),
    "a policy that cannot act": (run(policy=f"{HERE}:NoAct"), "a NoAct has neither act(observation)"),
    "a policy that needs an option": (run(policy=f"{HERE}:NeedsMore"), "missing a required argument: 'size'"),
    "a policy that is a module": (run(policy="os:path"), "policy 'os:path': "),
    "a policy that needs labels": (run(policy="no_teacher"), "kd_weight=1"),
    "a needed action denied": (run("--set", "action=subset"), "action=subset: policy 'uniform' needs action=weights; leave action out"),
    "credit and reward that do not go together": (
        run("--set", "reward=student_loss", policy="gradient_credit"),
        "credit='first_order' replaces the measured dev_improvement; with reward='student_loss' use credit=shared",
    ),
    "one teacher for camkd": (
        run("--teachers", TEACHER, policy="camkd"),
        "needs at least 2 teachers, pool 'digits/experts[upright]' has 1",
    ),
    "one teacher for the router": (run("--teachers", TEACHER, policy="router"), "needs at least 2 teachers"),
    "an oracle that nobody knows": (
        run("--teachers", "digits/capacity", policy="oracle"),
        "the best teachers of pool 'digits/capacity' are not known; use another pool, or leave this policy out",
    ),
    "a second policy that cannot work": (
        [*run("--teachers", "digits/capacity"), "--policy", "oracle"],
        "the best teachers of pool 'digits/capacity' are not known; use another pool, or leave this policy out",
    ),
    "unknown pool": (run("--teachers", "digits/expert"), "unknown pool 'digits/expert'; did you mean 'digits/experts'?"),
    "empty pool": (run("--teachers", ""), "unknown pool ''"),
    "a pool of another task": (run("--teachers", "domains/experts"), "pool 'domains/experts' is for another task than 'digits'"),
    "unknown teacher": (run("--teachers", "digits/experts/uprigt"), "unknown teacher of digits/experts 'uprigt'; did you mean 'upright'?"),
    "a teacher given twice": (run("--teachers", f"{TEACHER},{TEACHER}"), "teacher names must be unique, got upright, upright"),
    "unknown student": (run("--student", "mpl"), "unknown network 'mpl'; did you mean 'mlp'? (there is no folder"),
    "a student of another kind": (run("--student", "tiny-bert"), "student 'tiny-bert' reads text, task 'digits' is image; use tiny-vit"),
    "a student option it does not have": (run("--student", "mlp(widht=3)"), "unexpected keyword argument 'widht'; options: "),
    "a student option of the wrong type": (run("--student", "mlp(width=wide)"), "student mlp(width='wide'): expected a whole number"),
    "a student that cannot be": (run("--student", "mlp(width=2.5)"), "student mlp(width=2.5): expected a whole number of at least 1"),
    "a student of no width": (run("--student", "mlp(width=0)"), "student mlp(width=0): expected a whole number of at least 1"),
    "a student with too large patches": (run("--student", "tiny-vit(patch=9)"), "patch=9 must divide the side 8"),
    "a student with too many heads": (run("--student", "tiny-vit(heads=3)"), "heads=3 the width 32"),
    "no updates": (run("--updates", "0"), "updates=0: expected a whole number of at least 1"),
    "updates of the wrong type": (run("--updates", "many"), "Invalid value for '--updates'"),
    "updates twice": (run("--set", "updates=7"), "--updates 5 and --set updates=7: give one of them"),
    "unknown setting": (run("--set", "temprature=3"), "unknown setting 'temprature'; did you mean 'temperature'?"),
    "a setting that is not one": (run("--set", "task=domains"), "unknown setting 'task'"),
    "a setting without a value": (run("--set", "kd_weight"), "'kd_weight': expected key=value"),
    "a setting of the wrong type": (run("--set", "temperature=warm"), "temperature='warm': expected float, got str"),
    "a setting out of range": (run("--set", "kd_weight=1.5"), "kd_weight=1.5: expected a number of at least 0, at most 1"),
    "the former name of a setting": (run("--set", "strength=1"), "setting 'strength' is now called 'kd_weight'; use that name"),
    "the former name of a knowledge type": (
        run("--set", "knowledge=response,feature(strength=50)"),
        "knowledge='response,feature(strength=50)': 'feature' is now called 'layer'; use that name",
    ),
    "the former name of a default of a task": (
        run(task=f"{HERE}:with_former_name"),
        "Defaults(strength=0.5): 'strength' is now called 'kd_weight'; use that name",
    ),
    "a setting given twice": (run("--set", "kd_weight=1", "--set", "kd_weight=0.5"), "kd_weight is given twice, as 1 and 0.5"),
    "a choice there is not": (run("--set", "observation=half"), "unknown observation 'half'; known: cls, full, summary"),
    "unknown optimizer": (run("--set", "optimizer=adamm"), "unknown optimizer 'adamm'; did you mean 'adam"),
    "more reward labels than there are": (run("--set", "reward_labels=5000"), "reward_labels=5000: the reward split has 1200 examples"),
    "a batch larger than the split": (run("--set", "batch_size=4000"), "batch_size=4000 is more than the 3588 training examples"),
    "unknown device": (run("--set", "device=gpu"), "device='gpu'"),
    "seeds of the wrong type": (run("--seeds", "zero"), "--seeds 'zero': 'zero' names no seeds; expected numbers as 0-4 or 0,3,7"),
    "negative seeds": (run("--seeds", "-1"), "--seeds '-1'"),
    "seeds backwards": (run("--seeds", "4-0"), "--seeds '4-0': '4-0' names no seeds"),
    "no seeds": (run("--seeds", ""), "--seeds ''"),
    "a seed too large": (run("--seeds", "99999999999999999999"), "--seeds '99999999999999999999'"),
    "too many seeds": (run("--seeds", "0-999999999"), "up to 10000"),
    "negative workers": (run("--workers", "-1"), "Invalid value for '--workers'"),
}


@pytest.mark.parametrize("defect", BAD)
def test_bad_input_is_one_line_and_leaves_nothing(defect, out, capsys):
    arguments, message = BAD[defect]
    assert message in error_line(capsys, invoke([*arguments, "--out", str(out)]))
    assert list(out.parent.iterdir()) == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_where_there_is_none(out, capsys):
    line = error_line(capsys, invoke(run("--set", "device=cuda", "--out", out)))
    assert "device='cuda' is not available here; use device=auto or cpu" in line
    assert not out.exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written(tmp_path, capsys):
    tmp_path.chmod(0o500)
    assert "can be written to; name another place" in error_line(capsys, invoke(run("--out", tmp_path / "out")))


def test_a_bank_of_other_teachers(out, capsys):
    assert invoke(["bank", "--task", "digits", "--teachers", TEACHER, "--out", str(out), "--quiet"]) == 0
    capsys.readouterr()
    line = error_line(capsys, invoke(run("--bank", out, "--out", out.parent / "results")))
    assert (
        "holds the teachers upright, not upright, inverted, mirrored, transposed; name the same with --teachers, or another folder" in line
    )
    assert not (out.parent / "results").exists()


@pytest.mark.parametrize("damage", ['{"trial": "x"}', "[1]", "not json at all", "\xff\xfe"])
def test_damaged_results_name_the_line_and_are_left_alone(damage, out, capsys):
    out.mkdir()
    file = out / "results.jsonl"
    file.write_text(damage + "\n")
    for arguments in (run("--out", out), ["report", str(out)], ["replay", str(out), "x"]):
        assert f"{file}, line 1" in error_line(capsys, invoke(arguments))
    assert file.read_text() == damage + "\n"
    assert not (out / "traces").exists()
