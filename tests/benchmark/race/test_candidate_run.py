"""Students that are taught rung by rung, also after loading, equal students that are taught without a stop."""

from dataclasses import replace

import pytest
import torch

from baselines.rule import BaseRule
from kd_env.benchmark.race.candidate_run import POLICIES, STUDENTS, CandidateRun, RaceSetup
from kd_env.benchmark.race.candidates import Candidate
from kd_env.benchmark.run_trial import run_trials
from kd_env.benchmark.trial import Trial
from kd_env.errors import InputError
from kd_env.teachers import Pool

CREDIT = Candidate("gradient_credit", {"kd_weight": 0.5, "temperature": 2.0, "reward_examples": 16, "credit_refresh": 2})
UNIFORM = Candidate("uniform", {"kd_weight": 0.5, "temperature": 2.0})
DRAWING = Candidate("random_single", {"kd_weight": 0.5, "temperature": 2.0})  # a rule whose only state is its generator


@pytest.fixture
def setup(text_data, monkeypatch):
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
    return RaceSetup(text_data.task, pool, bank, settings)


def weights(run):
    return [parameter.detach().clone() for parameter in run.student(len(run.seeds) - 1).student.parameters]


@pytest.mark.long
@pytest.mark.parametrize(("candidate", "seeds"), [(CREDIT, [3]), (UNIFORM, [3, 4]), (DRAWING, [3, 4])])
def test_teaching_in_parts_equals_teaching_at_once(setup, candidate, seeds, tmp_path):
    whole, counted = CandidateRun(setup, candidate, seeds), []
    whole.teach(8, counted.append)
    assert counted == list(range(1, 9))
    parts = CandidateRun(setup, candidate, seeds)
    parts.teach(3, lambda _: None)
    assert parts.unsaved_seconds > 0.0
    parts.save(tmp_path)
    assert parts.unsaved_seconds == 0.0
    parts.teach(5, lambda _: None)
    again = CandidateRun(setup, candidate, seeds)
    again.load(tmp_path, [False] * len(seeds))
    assert again.update == 3
    again.teach(5, lambda _: None)
    again.teach(8, lambda _: None)
    parts.teach(8, lambda _: None)
    for other in (parts, again):
        assert all((first == second).all() for first, second in zip(weights(whole), weights(other), strict=True))
        assert (whole.logits("validation") == other.logits("validation")).all()


class Remembers(BaseRule):
    """Keeps the teachers' outputs that it is built with."""

    access = "reward labels"

    def __init__(self, context, seed=0):
        super().__init__(context, seed)
        self.logits_at_first = context.reward_examples().teacher_logits

    def decide(self, batch):
        return torch.full((batch.num_rows, batch.num_teachers), 1.0 / batch.num_teachers)


def test_a_rule_is_fitted_to_the_calibrated_teachers_that_teach(setup):
    settings = {**setup.settings, "calibrate_teachers": True, "reward_labels": 12}
    run = CandidateRun(replace(setup, settings=settings), Candidate(f"{__name__}:Remembers", {}), [3])
    run.teach(1, lambda _: None)
    (policy,) = run._policies
    assert run._selection.distillation.reward_split.label_seeds == [3]
    assert torch.equal(policy.rule.logits_at_first, policy.context.reward_examples().teacher_logits)


@pytest.mark.long
def test_the_student_equals_that_of_a_trial(tmp_path):
    from kd_env import tasks
    from kd_env.bank import open_bank
    from kd_env.teachers import load_pool

    task = tasks.load("digits").development()
    pool = load_pool("digits/experts", task)
    run = CandidateRun(RaceSetup(task, pool, open_bank(task, pool), {"updates": 12}), UNIFORM, [5])
    run.teach(12, lambda _: None)
    trial = Trial("digits", "uniform", 5, settings={"updates": 12, "kd_weight": 0.5, "temperature": 2.0})
    (record,) = run_trials([trial], tmp_path, lambda _: None)
    classes = run.logits("validation").argmax(2)
    assert classes.shape == (1, len(task.validation))
    assert float((classes[0] == task.validation.labels).mean()) == pytest.approx(record["validation"])


def test_a_student_that_diverges_stops_alone(setup):
    diverging = RaceSetup(setup.task, setup.pool, setup.bank, {**setup.settings, "optimizer": "sgd(lr=1e30)"})
    run = CandidateRun(diverging, UNIFORM, [0])
    run.teach(8, lambda _: None)
    assert run.diverged.tolist() == [True]
    assert run.update < 8
    assert run.logits("validation").shape == (1, len(setup.task.validation), 4)


@pytest.mark.long
@pytest.mark.parametrize("place", [0.02, 0.5, 0.99])
@pytest.mark.parametrize("name", [STUDENTS, POLICIES])
def test_damaged_files_are_named(setup, name, place, tmp_path):
    CandidateRun(setup, UNIFORM, [0]).save(tmp_path)
    content = bytearray((tmp_path / name).read_bytes())
    content[int(place * len(content))] ^= 1
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=rf"{tmp_path / name}: .*; delete the folder of the race"):
        CandidateRun(setup, UNIFORM, [0]).load(tmp_path, [False])


def test_a_missing_file_is_named(setup, tmp_path):
    CandidateRun(setup, UNIFORM, [0]).save(tmp_path)
    (tmp_path / POLICIES).unlink()
    with pytest.raises(InputError, match=f"{tmp_path / POLICIES} is missing; delete the folder of the race"):
        CandidateRun(setup, UNIFORM, [0]).load(tmp_path, [False])
