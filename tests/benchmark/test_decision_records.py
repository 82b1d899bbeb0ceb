"""Policies that give whole decisions: populations, snapshots, records and replay, and what is deployed."""

import pyarrow
import pyarrow.parquet
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification

from kd_env.benchmark import records
from kd_env.benchmark.replay import replay
from kd_env.benchmark.run_trial import make_env, run_trial, run_trials
from kd_env.benchmark.trial import Trial
from kd_env.cli import invoke
from kd_env.models.networks import build
from kd_env.policies import registry
from kd_env.teachers.checkpoint import CheckpointTeacher

LEARN_WITH_THE_STUDENT = ["amtml", "uncertainty", "camkd", "mt_bert"]
"""Policies with parameters, or maps of the student, that learn with it."""


def weights_of(env):
    return torch.cat([parameter.detach().flatten() for parameter in env.distillation.student.parameters])


@pytest.mark.long
@pytest.mark.parametrize("policy", LEARN_WITH_THE_STUDENT)
def test_students_taught_together_are_those_they_would_be_alone(policy, tmp_path):
    settings = {"updates": 12, "precision": "float64", "kd_weight": 0.5, "student": "mlp(width=8)"}
    trials = [Trial("digits", policy, seed, settings=settings) for seed in (3, 1)]
    kept = {"together": {}, "alone": {}}

    def keep(place):
        return lambda trial, run: kept[place].update({trial.seed: run})

    run_trials(trials, tmp_path / "together", lambda _: None, keep("together"))
    for trial in trials:
        run_trials([trial], tmp_path / "alone", lambda _: None, keep("alone"))
        together, alone = (dict(kept[place][trial.seed].student.network.named_parameters()) for place in ("together", "alone"))
        assert together.keys() == alone.keys()
        for name in alone:
            torch.testing.assert_close(together[name], alone[name], rtol=0, atol=1e-6, msg=lambda text, name=name: f"{name}: {text}")
    first, second = (kept["alone"][seed].student.network for seed in (3, 1))
    assert not torch.equal(next(first.parameters()), next(second.parameters()))


@pytest.mark.parametrize("policy", LEARN_WITH_THE_STUDENT)
def test_parameters_that_learn_with_a_student_are_in_its_snapshot_and_its_fork(policy):
    env = make_env(Trial("digits", policy, 0, settings={"updates": 7, "student": "mlp(width=8,dropout=0.2)"}))
    env.reset(seed=4)
    begun = weights_of(env)

    def play(env, updates):
        agent = registry.find(policy).build(env, 0)
        for _ in range(updates):
            env.step(agent.act(env.selection.observation()))
        return weights_of(env)

    play(env, 2)
    twin, state = env.fork(), env.snapshot()
    names = dict(env.distillation.student.network.named_parameters())
    assert any(not name.startswith(("body.", "classifier.", "network.")) for name in names), names.keys()
    expected = play(env, 3)
    assert not torch.equal(expected, begun)
    assert torch.equal(play(twin, 3), expected)
    env.restore(state)
    assert not torch.equal(weights_of(env), expected)
    assert torch.equal(play(env, 3), expected)


# Records


@pytest.fixture(scope="module", params=["amtml", "uncertainty", "camkd"])
def record(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    trial = Trial("digits", request.param, 2, settings={"updates": 6, "kd_weight": 0.5, "student": "mlp(width=8)"})
    records.append(folder, run_trial(trial, folder))
    return folder, trial.id


def with_changed_row(table, column, change):
    """The trace with ``change`` applied to row 70 of a column."""
    rows = table.column(column).to_pylist()
    rows[70] = change(rows[70])
    field = table.schema.field(column)
    return table.set_column(table.column_names.index(column), field, pyarrow.array(rows, field.type))


@pytest.mark.parametrize(
    ("column", "change", "message"),
    [
        (None, None, None),
        ("by_knowledge", lambda row: [row[0] + 0.01, *row[1:]], "update 0: the policy decides other weights than the record"),
        ("by_knowledge", lambda row: [*row[:-1], row[-1] + 0.01], "update 0: the policy decides other weights than the record"),
        ("strengths", lambda row: [*row[:-1], row[-1] + 0.01], "update 0: the rows of one decision differ"),
        ("temperature", lambda row: row + 1.0, "update 0: the rows of one decision differ"),
    ],
    ids=["nothing", "a weight", "a weight of another type", "one strength", "one temperature"],
)
def test_a_record_of_decisions_with_gradients_replays_and_tampering_is_found(record, column, change, message):
    folder, trial = record
    path = folder / "traces" / f"{trial}.parquet"
    table = pyarrow.parquet.read_table(path)
    try:
        if column:
            pyarrow.parquet.write_table(with_changed_row(table, column, change), path)
        assert replay(folder, trial)[:1] == ([message] if message else [])
    finally:
        pyarrow.parquet.write_table(table, path)


@pytest.mark.parametrize(("column", "message"), [("strengths", "other strengths"), ("temperature", "other temperature")])
def test_strengths_that_the_policy_did_not_decide_are_found(record, column, message):
    folder, trial = record
    path = folder / "traces" / f"{trial}.parquet"
    table = pyarrow.parquet.read_table(path)
    raised = [[value + 0.25 for value in row] if isinstance(row, list) else row + 0.25 for row in table.column(column).to_pylist()]
    field = table.schema.field(column)
    try:
        pyarrow.parquet.write_table(table.set_column(table.column_names.index(column), field, pyarrow.array(raised, field.type)), path)
        assert replay(folder, trial)[0] == f"update 0: the policy decides {message} than the record"
    finally:
        pyarrow.parquet.write_table(table, path)


# Deployment


@pytest.mark.long
def test_a_distilled_student_leaves_projectors_and_auxiliary_module_behind(own_data, own_task, make_checkpoint, tmp_path):
    teachers = ",".join(str(make_checkpoint(tmp_path / name, seed=seed)) for seed, name in enumerate(("one", "two")))
    student, out = "tiny-bert(width=16,layers=1,dropout=0)", tmp_path / "student"
    arguments = ["--task", f"folder:{own_data}", "--teachers", teachers, "--policy", "uncertainty", "--updates", "3", "--seeds", "0"]
    arguments += ["--quiet", "--student", student, "--set", "knowledge=response,hint,layer", "--out", str(out)]
    assert invoke(["distill", *arguments]) == 0
    saved = load_file(out / "model.safetensors")
    assert saved.keys() == AutoModelForSequenceClassification.from_pretrained(out).state_dict().keys()
    assert len(saved) == len(list(build(student, own_task, 0).parameters()))
    (record,) = records.read(out / "distillation")
    right = CheckpointTeacher(str(out), own_task)(own_task.test.inputs).logits.argmax(1).numpy() == own_task.test.labels
    assert float(right.mean()) == pytest.approx(record["test"])
