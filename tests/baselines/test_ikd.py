"""``ikd``: uniform weights with teachers that learn; what its record says; it runs, is replayed, and is refused without them."""

import json

import pytest

from kd_env.benchmark.replay import replay_record
from kd_env.benchmark.run_trial import run_trial
from kd_env.benchmark.trial import Trial
from kd_env.cli import invoke
from kd_env.errors import InputError
from kd_env.models.networks import build
from kd_env.teachers import NetworkTeacher, Pool


def encoders(task):
    """Two untrained encoders as teachers."""
    return Pool("encoders", tuple(NetworkTeacher(f"net{k}", build("tiny-bert(width=8,layers=1)", task, k), task) for k in range(2)))


def trial(policy="ikd", task="digits", teachers=None, **settings):
    return Trial(task, policy, 0, teachers, settings={"updates": 6, "student": "mlp(width=8)"} | settings)


@pytest.mark.long
def test_a_record_counts_the_passes_of_the_teachers_and_is_replayed(tmp_path):
    record = run_trial(trial(), tmp_path)
    banked = run_trial(trial("uniform"), tmp_path)
    rows = 4 * 32
    assert record["teacher_forward_examples"] - banked["teacher_forward_examples"] == rows * (6 + 1 + 2 * 6)
    assert record["access"] == "reward labels"
    assert record["selection_rate"] == pytest.approx([0.25] * 4)
    assert replay_record(tmp_path, record) == []


@pytest.mark.long
def test_with_a_rate_of_nearly_zero_it_is_uniform(tmp_path):
    still = run_trial(trial(teacher_learning="feedback(lr=1e-30)"), tmp_path)
    assert still["curve"] == run_trial(trial("uniform", teacher_answers="live"), tmp_path)["curve"]


@pytest.mark.long
def test_an_exam_on_train_reads_the_training_labels(tmp_path):
    settings = {"teacher_answers": "live", "teacher_learning": "feedback(exam=train)"}
    assert run_trial(trial("uniform", **settings), tmp_path)["access"] == "train labels"


@pytest.mark.long
def test_an_encoder_can_learn_to_teach(tmp_path):
    task = "domains(train=160,reward=48,validation=32,test=16)"
    record = run_trial(trial(task=task, teachers=f"{__name__}:encoders", student="tiny-bert(width=8,layers=1)", updates=2), tmp_path)
    assert not record["diverged"]


@pytest.mark.parametrize("setting", [{"teacher_answers": "bank"}, {"teacher_learning": ""}])
def test_without_teachers_that_learn_it_is_refused(setting, tmp_path):
    with pytest.raises(InputError):
        run_trial(trial(**setting), tmp_path)


def test_it_is_listed(capsys):
    assert invoke(["list", "policies", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["ikd"]["access"] == "reward labels"
