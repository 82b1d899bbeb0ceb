"""Whole decisions in place of actions: what they teach, what is refused, and that what learns beside a student travels with it."""

import dataclasses

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch
from playing import KNOWLEDGE, same, slots, weights_of
from safetensors.torch import load_file
from torch import nn
from transformers import AutoModelForSequenceClassification

from kd_env import tasks
from kd_env.benchmark import records
from kd_env.benchmark.replay import replay
from kd_env.benchmark.run_trial import make_env, run_trial, run_trials
from kd_env.benchmark.trial import Trial
from kd_env.cli import invoke
from kd_env.envs.decisions import from_weights, together
from kd_env.errors import InputError
from kd_env.models.networks import build
from kd_env.policies import registry
from kd_env.teachers import NetworkTeacher, Pool
from kd_env.teachers.checkpoint import CheckpointTeacher
from kd_env.teachers.teacher import classifiers
from kd_env.types import Decision

DIGITS = {"task": "digits", "student": "mlp(width=8)"}


class Tilt(nn.Module):
    """A auxiliary_module: one weighing of the teachers for all examples."""

    def __init__(self, width, widths, num_terms):
        super().__init__()
        self.said = {"width": width, "widths": widths, "num_terms": num_terms}
        self.scores = nn.Parameter(torch.zeros(len(widths)))

    def forward(self, output):
        return self.scores.softmax(0).expand(len(output.logits), -1)


COMPANION = f"{__name__}:Tilt"


# What a decision teaches


@pytest.mark.parametrize("kd_weight", [1.0, 0.25])
@pytest.mark.parametrize("students", [1, 2])
def test_a_decision_that_says_what_an_action_means_gives_the_same_student(kd_weight, students):
    keywords = {
        **DIGITS,
        "action": "one",
        "kd_weight": kd_weight,
        "temperature": 3.0,
        "num_students": students,
        "autoreset_mode": "disabled",
    }
    acting, deciding = (slots(3 * students, **keywords).unwrapped for _ in range(2))
    acting.reset(seed=2), deciding.reset(seed=2)
    rng = np.random.default_rng(0)
    for _ in range(4):
        action = rng.integers(4, size=3 * students)
        weights = torch.eye(4)[torch.from_numpy(action)]
        strengths = {"response": kd_weight} | ({"label": 1.0 - kd_weight} if kd_weight < 1.0 else {})
        acted = acting.step(action)
        assert same(acted, deciding.step(Decision({"response": weights}, strengths, 3.0)))
        assert torch.equal(weights_of(acting), weights_of(deciding))
    assert np.isfinite(acted[1]).all()


def test_taught_has_the_setting_s_strengths_times_factors():
    env = slots(3, **DIGITS, kd_weight=0.4, temperature=2.5, knowledge="response,hint(strength=5)").unwrapped
    alike = torch.full((3, 4), 0.25)
    column = torch.tensor([1.0, 2.0, 3.0])
    decision = from_weights(env.selection.distillation, {"response": alike, "hint": alike}, {"hint": 0.5, "label": column})
    assert decision.temperature == 2.5
    assert list(decision.weights) == ["response", "hint"]
    assert decision.strengths["response"] == pytest.approx(0.4)
    assert decision.strengths["hint"] == pytest.approx(0.4 * 5 * 0.5)
    assert decision.strengths["label"].tolist() == pytest.approx([0.6, 1.2, 1.8])
    assert set(decision.strengths) == {"response", "hint", "label"}
    with pytest.raises(InputError, match=r"the policy weighs response, not hint; leave that out"):
        from_weights(env.selection.distillation, {"response": alike})


def test_decisions_are_joined_row_by_row_whatever_the_form_of_their_numbers():
    one = Decision({"response": torch.full((2, 3), 1 / 3)}, {"response": torch.tensor(0.5)}, 2.0, torch.tensor([1.0, 2.0]))
    other = Decision({"response": torch.eye(3)[:2]}, {"response": 1.0}, torch.tensor([4.0, 5.0]), torch.tensor([3.0, 4.0]))
    both = together([one, other], 2)
    assert both.weights["response"].tolist() == [*one.weights["response"].tolist(), *torch.eye(3)[:2].tolist()]
    assert both.strengths["response"].tolist() == [0.5, 0.5, 1.0, 1.0]
    assert both.temperature.tolist() == [2.0, 2.0, 4.0, 5.0]
    assert both.penalty.tolist() == [1.0, 2.0, 3.0, 4.0]
    assert together([other, dataclasses.replace(other, temperature=2.0)], 2).strengths == {"response": 1.0}


# What is refused

ALIKE = torch.full((3, 4), 0.25)
BAD = {
    "an unknown type": (
        {},
        Decision({"magic": ALIKE}, {"magic": 1.0}, 1.0),
        "decision: 'magic' is no knowledge type of this setting, .*response",
    ),
    "labels that are no part": (
        {},
        Decision({"response": ALIKE}, {"label": 0.5}, 1.0),
        "decision: 'label' is no knowledge type of this setting",
    ),
    "weights of the label": ({"kd_weight": 1.0}, Decision({"label": ALIKE}, {}, 1.0), "'label' is no knowledge type"),
    "too few rows": (
        {},
        Decision({"response": ALIKE[:2]}, {"response": 1.0}, 1.0),
        r"weights of 'response' have shape \(2, 4\), expected \(3, 4\)",
    ),
    "too few teachers": ({}, Decision({"response": ALIKE[:, :3]}, {"response": 1.0}, 1.0), r"have shape \(3, 3\), expected \(3, 4\)"),
    "a strength of another shape": (
        {},
        Decision({"response": ALIKE}, {"response": ALIKE}, 1.0),
        r"strength of 'response' has shape \(3, 4\), expected \(3,\)",
    ),
    "a temperature of another shape": (
        {},
        Decision({"response": ALIKE}, {"response": 1.0}, torch.ones(2)),
        r"temperature has shape \(2,\), expected \(3,\)",
    ),
    "a penalty of another shape": (
        {},
        Decision({"response": ALIKE}, {"response": 1.0}, 1.0, torch.tensor(1.0)),
        r"penalty has shape \(\), expected \(3,\)",
    ),
    "a strength without weights": ({}, Decision({}, {"response": 1.0}, 1.0), "'response' has a strength and no weights; give both"),
    "credit": (
        {"credit": "first_order"},
        Decision({"response": ALIKE}, {"response": 1.0}, 1.0),
        "credit='first_order' is paid for actions; a whole decision is taught with credit=shared",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_decision_that_does_not_fit_is_refused_and_teaches_nothing(case):
    keywords, decision, says = BAD[case]
    env = slots(3, **{**DIGITS, "kd_weight": 1.0, **keywords}).unwrapped
    env.reset(seed=0)
    before = weights_of(env)
    with pytest.raises(InputError, match=says):
        env.step(decision)
    assert torch.equal(weights_of(env), before)
    assert env.distillation.update == 0


def test_a_decision_is_about_one_mini_batch():
    env = slots(1, KNOWLEDGE, task="digits", batch_size=3, updates_per_phase=2).unwrapped
    env.reset(seed=0)
    with pytest.raises(InputError, match="updates_per_phase=2: a decision is about one mini-batch; leave it out"):
        env.step(Decision({"response": ALIKE}, {"response": 1.0}, 1.0))


@pytest.mark.parametrize(
    ("auxiliary_module", "says"),
    [
        (f"{__name__}:Nothing", "cannot be imported"),
        ("builtins:dict", "auxiliary_module 'builtins:dict'"),
        (f"{COMPANION}(size=3)", "size"),
    ],
)
def test_a_companion_that_is_none_is_refused(auxiliary_module, says):
    with pytest.raises(InputError, match=says):
        slots(3, **DIGITS, auxiliary_module=auxiliary_module)


# Gradients


@pytest.mark.parametrize("detached", [False, True])
@pytest.mark.parametrize("students", [1, 2])
def test_a_companion_learns_by_what_it_weighs_and_by_nothing_else(detached, students):
    env = slots(
        3 * students, **DIGITS, auxiliary_module=COMPANION, num_students=students, optimizer="sgd(lr=0.1)", precision="float64"
    ).unwrapped
    env.reset(seed=0)
    run = env.distillation
    weights = run.student_output().auxiliary
    assert weights.tolist() == [[0.25] * 4] * 3 * students
    every = run.per_teacher_loss("response", 2.0).detach().view(students, 3, 4).mean(1)  # [S, K]
    env.step(Decision({"response": weights.detach() if detached else weights}, {"response": 1.0}, 2.0))
    # d/ds_k of sum_k softmax(s)_k L_k at s = 0 is (L_k - mean L) / K
    expected = torch.zeros_like(every) if detached else -0.1 * (every - every.mean(1, keepdim=True)) / 4
    for s in range(students):
        moved = env.distillation.member(s).student.network.auxiliary_module.scores
        torch.testing.assert_close(moved.detach(), expected[s])


def test_a_companion_is_told_widths_and_types():
    env = slots(3, **DIGITS, knowledge="response,hint,contrast", kd_weight=0.5, auxiliary_module=COMPANION).unwrapped
    said = env.distillation.student.network.auxiliary_module.said
    assert said == {"width": 8, "widths": env.selection.data.bank.widths, "num_terms": 3}


# Together, taken away and brought back

LEARNT_BESIDE = ["amtml", "uncertainty", "camkd", "mt_bert"]


@pytest.mark.parametrize("policy", LEARNT_BESIDE)
def test_students_taught_together_are_those_they_would_be_alone(policy, tmp_path):
    settings = {"updates": 12, "precision": "float64", "kd_weight": 0.5, "student": "mlp(width=8)"}
    trials = [Trial("digits", policy, seed, settings=settings) for seed in (3, 1)]
    kept = {"together": {}, "alone": {}}

    def keep(place):
        return lambda trial, run: kept[place].update({trial.seed: run})

    run_trials(trials, tmp_path / "together", lambda _: None, keep("together"))
    for trial in trials:
        run_trials([trial], tmp_path / "alone", lambda _: None, keep("alone"))
        mine, own = (dict(kept[place][trial.seed].student.network.named_parameters()) for place in ("together", "alone"))
        assert mine.keys() == own.keys()
        for name in own:
            torch.testing.assert_close(mine[name], own[name], rtol=0, atol=1e-6, msg=lambda text, name=name: f"{name}: {text}")
    first, second = (kept["alone"][seed].student.network for seed in (3, 1))
    assert not torch.equal(next(first.parameters()), next(second.parameters()))


@pytest.mark.parametrize("policy", LEARNT_BESIDE)
def test_what_learns_beside_a_student_is_in_its_snapshot_and_its_fork(policy):
    env = make_env(Trial("digits", policy, 0, settings={"updates": 7, "student": "mlp(width=8,dropout=0.2)"}))
    env.reset(seed=4)
    begun = weights_of(env)

    def play(played, updates):
        one = registry.find(policy).build(played, 0)
        for _ in range(updates):
            played.step(one.act(played.selection.observation()))
        return weights_of(played)

    play(env, 2)
    twin, state = env.fork(), env.snapshot()
    named = dict(env.distillation.student.network.named_parameters())
    assert any(name.startswith(("auxiliary_module.", "network.maps.", "maps.", "map", "network.map")) for name in named)
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


def changed_lists(table, column, change):
    """The trace with ``change`` applied to the numbers of row 70 of a column of lists."""
    rows = table.column(column).to_pylist()
    rows[70] = change(rows[70])
    return table.set_column(
        table.column_names.index(column), table.schema.field(column), pyarrow.array(rows, table.schema.field(column).type)
    )


@pytest.mark.parametrize(
    ("column", "change", "says"),
    [
        (None, None, None),
        ("by_knowledge", lambda row: [row[0] + 0.01, *row[1:]], "update 0: the policy decides other weights than the record"),
        ("by_knowledge", lambda row: [*row[:-1], row[-1] + 0.01], "update 0: the policy decides other weights than the record"),
        ("strengths", lambda row: [*row[:-1], row[-1] + 0.01], "update 0: the rows of one decision differ in what it was"),
        ("temperature", lambda row: row + 1.0, "update 0: the rows of one decision differ in what it was"),
    ],
    ids=["nothing", "a weight", "a weight of another type", "one strength", "one temperature"],
)
def test_a_record_of_decisions_with_gradients_replays_and_tampering_is_said(record, column, change, says, tmp_path):
    folder, trial = record
    path = folder / "traces" / f"{trial}.parquet"
    table = pyarrow.parquet.read_table(path)
    try:
        if column:
            pyarrow.parquet.write_table(changed_lists(table, column, change), path)
        assert replay(folder, trial)[:1] == ([says] if says else [])
    finally:
        pyarrow.parquet.write_table(table, path)


@pytest.mark.parametrize(("column", "says"), [("strengths", "other strengths"), ("temperature", "other temperature")])
def test_strengths_that_the_policy_did_not_decide_are_found_out(record, column, says):
    folder, trial = record
    path = folder / "traces" / f"{trial}.parquet"
    table = pyarrow.parquet.read_table(path)
    raised = [[one + 0.25 for one in row] if isinstance(row, list) else row + 0.25 for row in table.column(column).to_pylist()]
    field = table.schema.field(column)
    try:
        pyarrow.parquet.write_table(table.set_column(table.column_names.index(column), field, pyarrow.array(raised, field.type)), path)
        assert replay(folder, trial)[0] == f"update 0: the policy decides {says} than the record"
    finally:
        pyarrow.parquet.write_table(table, path)


# What is deployed, and what teachers show


def test_a_distilled_student_leaves_maps_and_companion_behind(own_data, own_task, make_checkpoint, tmp_path, capsys):
    teachers = ",".join(str(make_checkpoint(tmp_path / name, seed=seed)) for seed, name in enumerate(("one", "two")))
    given = ["--task", f"folder:{own_data}", "--teachers", teachers, "--policy", "uncertainty", "--updates", "3", "--seeds", "0", "--quiet"]
    student, out = "tiny-bert(width=16,layers=1,dropout=0)", tmp_path / "student"
    assert invoke(["distill", *given, "--student", student, "--set", "knowledge=response,hint,layer", "--out", str(out)]) == 0
    saved = load_file(out / "model.safetensors")
    assert saved.keys() == AutoModelForSequenceClassification.from_pretrained(out).state_dict().keys()
    assert len(saved) == len(list(build(student, own_task, 0).parameters()))
    (record,) = records.read(out / "distillation")
    right = CheckpointTeacher(str(out), own_task)(own_task.test.inputs).logits.argmax(1).numpy() == own_task.test.labels
    assert float(right.mean()) == pytest.approx(record["test"])


@pytest.mark.parametrize("scale", [1.0, 4.0])
def test_the_head_of_a_network_gives_its_logits(scale):
    task = tasks.load("digits")
    pool = Pool("two", tuple(NetworkTeacher(f"t{seed}", build(f"mlp(width={8 + seed})", task, seed), task, scale) for seed in range(2)))
    for teacher, (weight, bias) in zip(pool.teachers, classifiers(pool), strict=True):
        said = teacher(task.train.inputs[:20])
        torch.testing.assert_close(said.features @ weight.T + bias, said.logits)
        assert not weight.requires_grad


@pytest.mark.parametrize("labels", [("neg", "pos"), ("pos", "neg")])
def test_the_head_of_a_checkpoint_gives_its_logits_in_the_task_s_order(labels, make_checkpoint, own_task, tmp_path):
    teacher = CheckpointTeacher(str(make_checkpoint(tmp_path / "one", labels=labels)), own_task)
    ((weight, bias),) = classifiers(Pool("one", (teacher,)))
    said = teacher(own_task.train.inputs[:20])
    torch.testing.assert_close(said.features @ weight.T + bias, said.logits, atol=1e-5, rtol=1e-4)
    assert (said.logits[:, 0] - said.logits[:, 1]).abs().min() > 1e-3, "the order of the classes matters"


def test_a_teacher_without_a_head_is_named():
    class Silent:
        name = "silent"

    with pytest.raises(InputError, match=r"teacher 'silent' has no classifier \(head\(\)\)"):
        classifiers(Pool("silent", (Silent(),)))
