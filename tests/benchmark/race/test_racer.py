"""Students that are taught in stretches, also from a file, are those that are taught at once."""

import numpy as np
import pytest

from kd_env.benchmark.race.candidates import Candidate
from kd_env.benchmark.race.racer import Course, Racer
from kd_env.benchmark.run_trial import run_trials
from kd_env.benchmark.trial import Trial
from kd_env.teachers import Pool

CREDIT = Candidate("gradient_credit", {"kd_weight": 0.5, "temperature": 2.0, "reward_examples": 16, "credit_refresh": 2})
UNIFORM = Candidate("uniform", {"kd_weight": 0.5, "temperature": 2.0})


@pytest.fixture
def course(text_data, monkeypatch):
    class Teacher:
        def __init__(self, name):
            self.name = name

        def fingerprint(self):
            return self.name

        def __call__(self, inputs):
            raise AssertionError("the bank has the answers")

    bank, pool = text_data.bank, Pool("untrained", tuple(Teacher(name) for name in text_data.bank.teachers))
    settings = {"updates": 8, "student": "tiny-bert(width=16,layers=1,dropout=0)", "validation_every": 8, "batch_size": 8}
    monkeypatch.setattr("kd_env.envs.make.open_bank", lambda *_, **__: bank)
    return Course(text_data.task, pool, bank, settings)


def weights(racer):
    return [parameter.detach().clone() for parameter in racer.student(len(racer.seeds) - 1).student.parameters]


@pytest.mark.parametrize(("candidate", "seeds"), [(CREDIT, [3]), (UNIFORM, [3, 4])])
def test_stretches_equal_one_stretch(course, candidate, seeds, tmp_path):
    whole, counted = Racer(course, candidate, seeds), []
    whole.teach(8, counted.append)
    assert counted == list(range(1, 9))
    parts = Racer(course, candidate, seeds)
    parts.teach(3, lambda _: None)
    parts.save(tmp_path)
    parts.teach(5, lambda _: None)
    again = Racer(course, candidate, seeds)
    again.load(tmp_path, [False] * len(seeds))
    assert again.update == 3
    again.teach(5, lambda _: None)
    again.teach(8, lambda _: None)
    parts.teach(8, lambda _: None)
    for other in (parts, again):
        assert all((one == two).all() for one, two in zip(weights(whole), weights(other), strict=True))
        assert (whole.classes("validation") == other.classes("validation")).all()


def test_a_racer_s_student_is_that_of_a_trial(tmp_path):
    from kd_env import tasks
    from kd_env.bank import open_bank
    from kd_env.teachers import load_pool

    task = tasks.load("digits").development()
    pool = load_pool("digits/experts", task)
    racer = Racer(Course(task, pool, open_bank(task, pool), {"updates": 12}), UNIFORM, [5])
    racer.teach(12, lambda _: None)
    trial = Trial("digits", "uniform", 5, settings={"updates": 12, "kd_weight": 0.5, "temperature": 2.0})
    (record,) = run_trials([trial], tmp_path, lambda _: None)
    classes = racer.classes("validation")
    assert classes.shape == (1, len(task.validation))
    assert float((classes[0] == task.validation.labels).mean()) == pytest.approx(record["validation"])


def test_a_student_that_diverges_stops_alone(course):
    diverging = Course(course.task, course.pool, course.bank, {**course.settings, "optimizer": "sgd(lr=1e30)"})
    racer = Racer(diverging, UNIFORM, [0])
    racer.teach(8, lambda _: None)
    assert racer.lost.tolist() == [True]
    assert racer.update < 8
    assert np.isin(racer.classes("validation"), range(4)).all()
