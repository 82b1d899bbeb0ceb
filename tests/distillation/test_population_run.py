"""Many students at once: each is the student it would be alone, whatever becomes of the others."""

import dataclasses
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from test_run import decide, digest, drive, start, weights_for

from kd_env.distillation import Distillation
from kd_env.envs import credit
from kd_env.envs.settings import settings
from kd_env.errors import InputError
from kd_env.student.population import Population
from kd_env.types import Decision

IMAGE = {"student": "mlp(width=8)", "num_students": 3, "precision": "float64", "updates": 200}
BERT = "tiny-bert(width=8,layers=2,heads=2,dropout=0)"
TEXT = {"student": BERT, "num_students": 2, "precision": "float64", "updates": 100, "batch_size": 6}

CASES = {
    "adam, redrawn measurements": ("digits_data", {"reward_examples": 20, "optimizer": "adam(lr=0.01)"}, 200),
    "sgd, metric, mixed": ("digits_data", {"optimizer": "sgd(lr=0.05,decay=linear)", "measure": "metric", "reward": "mixed"}, 100),
    "adamw, labels, now and then": (
        "digits_data",
        {"optimizer": "adamw(lr=0.01,weight_decay=0.1,warmup=0.3,decay=linear)", "kd_weight": 0.5, "reward_every": 7},
        100,
    ),
    "extra reward loss": ("digits_data", {"reward_ce": 0.5, "reward_labels": 21, "label_seed": 4}, 60),
    "first-order credit": ("digits_data", {"credit": "first_order", "reward_examples": 20, "optimizer": "adam(lr=0.01)"}, 60),
    "stale first-order credit": ("digits_data", {"credit": "first_order", "credit_refresh": 7, "optimizer": "sgd(lr=0.05)"}, 60),
    "head credit": ("digits_data", {"credit": "head", "credit_refresh": 2, "reward_examples": 20}, 60),
    "counterfactual credit": ("digits_data", {"credit": "counterfactual", "batch_size": 2, "reward_examples": 20}, 20),
    # not Adam: Transformers takes a ViT's softmax in float32, whose rounding Adam makes a drift of the key bias, which no output sees
    "tiny-vit": ("digits_data", {"student": "tiny-vit(width=8,layers=1)", "num_students": 2, "optimizer": "sgd(lr=0.02)"}, 20),
    "text, layers": ("layered_data", {"knowledge": "response,layer,relation", "optimizer": "adam(lr=0.001)"}, 40),
    "text, hints": ("layered_data", {"knowledge": "hint,layer(grouped=true)", "optimizer": "adam(lr=0.001)"}, 20),
    "text, all others": (
        "layered_data",
        {
            "knowledge": "response,similarity,attention,tckd,nckd,contrast",
            "kd_weight": 0.5,
            "optimizer": "adamw(lr=0.001,weight_decay=0.1)",
        },
        30,
    ),
    "text, credit of every type": (
        "layered_data",
        {"knowledge": "response,layer,similarity,attention", "credit": "first_order", "reward_examples": 8, "updates": 8},
        8,
    ),
}
"""EncodedTask, settings, and how many updates are looked at; five times as many in the slow tests."""


def many(request, case, seed=5, **changed):
    data, keywords, _ = CASES[case]
    given = request.getfixturevalue(data)
    return start(given, seed, **((IMAGE if given.task.kind == "image" else TEXT) | keywords | changed))


def alone(run, student, seed):
    """A run of its own with the settings of ``run``."""
    options = dataclasses.replace(run.settings, num_students=1, label_seed=run.label_seeds[student])
    return Distillation(run.data, options, seed)


def each_alone(run):
    return [alone(run, s, int(seed)) for s, seed in enumerate(run.seeds)]


def assert_equal(run, student, one, rtol=1e-7, atol=1e-9):
    """Student and run of its own: what was learned, counted, measured and remembered."""
    mine, own = run.student.state_of(student), one.student.state()
    assert mine.keys() == own.keys()
    for name in own:
        torch.testing.assert_close(mine[name], own[name], rtol=rtol, atol=atol, msg=lambda text, name=name: f"{name}: {text}")
    for name in ("seeds", "update", "diverged", "student_forward_examples"):
        assert getattr(run, name)[student] == getattr(one, name)[0], name
    for name in ("seeds", "measurements", "forward_examples", "gradient_update"):
        assert getattr(run.meter, name)[student] == getattr(one.meter, name)[0], name
    np.testing.assert_allclose(run.meter.before[:, student], one.meter.before[:, 0], rtol=1e-7, atol=1e-9)
    assert run.memory[student] == one.memory[0]


def follow(run, apart, updates, rtol=1e-7, atol=1e-9, healthy=None):
    """Teach all and each; what is seen on the way is the same."""
    names, size = list(run.terms), run.settings.batch_size
    for _ in range(updates):
        going = ~run.done
        seen = run.observe()
        given = {} if run.settings.credit == "shared" else credit.CREDITS[run.settings.credit](run, names)
        outcome = run.apply(decide(run))
        for s, one in enumerate(apart):
            if not going[s]:
                continue
            rows = slice(s * size, (s + 1) * size)
            features = one.observe()
            assert (seen.example_ids[rows] == features.example_ids).all()
            assert (seen.update[s], seen.progress[s]) == (features.update[0], features.progress[0])
            own = {} if run.settings.credit == "shared" else credit.CREDITS[run.settings.credit](one, names)
            expected = one.apply(decide(one))
            if expected.diverged[0]:
                assert outcome.diverged[s]
                continue
            for name in own:
                scale = own[name].abs().max().item()
                torch.testing.assert_close(given[name][rows], own[name], rtol=rtol, atol=1e-6 * scale)
            torch.testing.assert_close(outcome.student_ce[rows], expected.student_ce, rtol=rtol, atol=atol)
            assert outcome.loss[s] == pytest.approx(expected.loss[0], rel=rtol, abs=atol)
            if expected.improvement is None:
                assert outcome.improvement is None or np.isnan(outcome.improvement[s])
            else:
                assert outcome.improvement[s] == pytest.approx(expected.improvement[0], abs=1e-8)
            assert outcome.diverged[s] == expected.diverged[0]


def damage(run, student, value):
    """One of the student's parameters becomes ``value``."""
    with torch.no_grad():
        run.student.theta[student, 5] = value


@pytest.mark.parametrize("times", [1, pytest.param(5, marks=pytest.mark.slow)])
@pytest.mark.parametrize("case", CASES)
def test_each_student_is_the_one_it_would_be_alone(request, case, times):
    run, updates = many(request, case), CASES[case][2] * times
    run = many(request, case, updates=max(updates, run.settings.updates))
    assert isinstance(run.student, Population)
    apart = each_alone(run)
    before, _ = run.validate()
    follow(run, apart, updates)
    loss, metric = run.validate()
    for s, one in enumerate(apart):
        assert_equal(run, s, one)
        np.testing.assert_allclose((loss[s], metric[s]), [value[0] for value in one.validate()], rtol=1e-7)
    assert len(set(loss.tolist())) == len(loss), "students differ"
    assert (np.abs(loss - before) > 1e-3).all(), "and have learned"


def test_seeds_may_be_given_one_by_one_and_reward_labels_too(digits_data):
    options = settings(digits_data.task, **IMAGE | {"batch_size": 8, "reward_labels": 30, "num_students": 2})
    run = Distillation(digits_data, options, [9, 2], [7, 3])
    assert (run.meter.rows[0] != run.meter.rows[1]).any()
    apart = each_alone(run)
    follow(run, apart, 12)
    for s, one in enumerate(apart):
        assert (run.meter.rows[s] == one.meter.rows[0]).all()
        assert_equal(run, s, one)


def test_all_have_the_same_reward_labels_by_default(request):
    run = many(request, "extra reward loss")
    assert (run.meter.rows == run.meter.rows[0]).all()
    assert run.meter.rows.shape == (3, 21)


BROKEN = {
    "adam": ("adam, redrawn measurements", "nan"),
    "sgd": ("sgd, metric, mixed", "inf"),
    "adamw": ("adamw, labels, now and then", "-inf"),
    "credit": ("stale first-order credit", "nan"),
    "extra reward loss": ("extra reward loss", "nan"),
    "head credit": ("head credit", "inf"),
    "tiny-vit": ("tiny-vit", "nan"),
    "text": ("text, all others", "inf"),
}


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("observed", [False, True])
def test_what_is_not_finite_stays_in_its_student_which_can_begin_again(request, name, observed):
    """Another student takes the place of the broken one, at its own point of schedule, data and draws."""
    case, value = BROKEN[name]
    run = many(request, case, updates=24)
    apart = each_alone(run)
    follow(run, apart, 9)
    damage(run, 1, float(value))
    damaged = torch.cat([parameter.flatten() for parameter in apart[1].student.parameters]).detach()
    damaged[5] = float(value)
    torch.nn.utils.vector_to_parameters(damaged, apart[1].student.parameters)
    follow(run, apart, 1)
    assert run.diverged.tolist() == [s == 1 for s in range(run.num_students)]
    follow(run, apart, 3)
    assert run.update.tolist() == [10 if s == 1 else 13 for s in range(run.num_students)], "what diverged is taught no more"
    if observed:
        run.observe()
        credit.CREDITS[run.settings.credit](run, list(run.terms)) if run.settings.credit == "first_order" else None
    apart[1] = alone(run, 1, 77)
    run.reset_student(1, 77)
    assert_equal(run, 1, apart[1])
    assert not run.diverged.any()
    follow(run, apart, 11)
    for s in (0, *range(2, run.num_students)):
        assert run.done[s]
        if observed and name == "credit":  # the credit looked at and dropped was a pass
            apart[s].state.forward_examples += run.settings.batch_size
        assert_equal(run, s, apart[s])
    follow(run, apart, 13)
    assert run.done.all()
    assert_equal(run, 1, apart[1])


def test_a_student_without_a_loss_to_measure_by_diverges_alone(text_data):
    """What it has not seen in its mini-batch can still break its measurement."""
    keywords = {"student": "tiny-bert(width=8,layers=1,dropout=0)", "num_students": 2, "batch_size": 1, "updates": 4}
    run = start(text_data, 5, **keywords)
    apart = each_alone(run)
    seen = set(run.observe().example_ids.tolist())
    words = {row: set(text_data.inputs["train"]["input_ids"][row].tolist()) for row in seen}
    measured = text_data.inputs["reward"]["input_ids"][run.meter.rows[1]].flatten().tolist()
    elsewhere = next(word for word in measured if all(word not in said for said in words.values()))
    run = start(text_data, 5, **keywords)
    names = list(run.student._shapes)
    embedding = next(name for name in names if "word_embeddings" in name)
    with torch.no_grad():
        run.student._parts(run.student.theta)[embedding][1, elsewhere] = float("nan")
    outcome = run.apply(decide(run))
    expected = apart[0].apply(decide(apart[0]))
    assert outcome.diverged.tolist() == [False, True]
    assert outcome.improvement[0] == pytest.approx(expected.improvement[0], abs=1e-6)
    assert np.isnan(outcome.improvement[1])


@pytest.mark.parametrize("optimizer", ["adamw(lr=0.003,weight_decay=0.1)", "sgd(lr=0.02,weight_decay=0.1)"])
def test_a_type_that_reaches_a_part_of_the_network_alone_is_no_exception(layered_data, optimizer):
    """Momentum and weight decay of the other part go on, in a population as in a student of its own."""
    run = start(layered_data, 5, **TEXT | {"knowledge": "response,layer", "optimizer": optimizer})
    apart = each_alone(run)
    for update in range(12):
        for one in (run, *apart):
            name = ("response", "layer", "label")[update // 3 % 3]
            one.apply(Decision({name: weights_for(one)}, {name: 1.0}, 2.0))
    for s, one in enumerate(apart):
        assert_equal(run, s, one)


def test_those_who_are_left_out_stay_as_they_are(request):
    run = many(request, "adam, redrawn measurements")
    apart = each_alone(run)
    follow(run, apart, 5)
    kept = run.student.state_of(1)
    for _ in range(3):
        run.apply(decide(run), np.array([True, False, True]))
        for one in (apart[0], apart[2]):
            one.apply(decide(one))
    assert run.update.tolist() == [8, 5, 8]
    assert all(torch.equal(value, kept[name]) for name, value in run.student.state_of(1).items())
    for _ in range(2):
        run.apply(decide(run), np.array([False, True, False]))
        apart[1].apply(decide(apart[1]))
    for s, one in enumerate(apart):
        one.state.forward_examples[:] = run.state.forward_examples[s]  # a pass is one of all
        assert_equal(run, s, one)


MEMBERS = ["adam, redrawn measurements", "sgd, metric, mixed", "adamw, labels, now and then", "first-order credit", "text, layers"]


@pytest.mark.parametrize("case", MEMBERS)
@pytest.mark.parametrize("observed", [False, True])
def test_a_member_continues_alone_as_it_would_among_the_others(request, case, observed):
    run = many(request, case, updates=40)
    drive(run, 6)
    run.reset_student(1, 50)
    drive(run, 5)
    if observed:
        run.observe()
    run.memory[1]["remembered"] = [1, 2]
    members = [run.member(s) for s in range(run.num_students)]
    assert [one.num_students for one in members] == [1] * run.num_students
    assert [one.update.tolist() for one in members] == [[5 if s == 1 else 11] for s in range(run.num_students)]
    untouched = digest(run)
    drive(members[0].fork(), 2)
    assert digest(run) == untouched
    follow(run, members, 12, rtol=1e-10, atol=1e-10)
    for s, one in enumerate(members):
        assert_equal(run, s, one, rtol=1e-10, atol=1e-10)


def test_a_member_before_the_first_update_is_a_fresh_student(request):
    run = many(request, "adam, redrawn measurements")
    assert digest(run.member(2)) == digest(alone(run, 2, 7))


def test_a_lone_run_is_its_own_member(digits_data):
    run = start(digits_data)
    assert run.member(0) is run


SNAPSHOTS = {
    **{name: CASES[name] for name in ("sgd, metric, mixed", "stale first-order credit", "text, all others")},
    "adam, dropout": ("digits_data", {"student": "mlp(width=8,dropout=0.3)", "precision": "float32", "optimizer": "adam(lr=0.01)"}, 0),
    "extra reward loss, dropout": ("digits_data", {"student": "mlp(width=8,dropout=0.3)", "reward_ce": 0.5}, 0),
    "first-order credit, dropout": (
        "digits_data",
        {"student": "mlp(width=8,dropout=0.3)", "credit": "first_order", "credit_refresh": 3, "reward_examples": 20},
        0,
    ),
}


def out_of_phase(data, case, seed):
    """A population whose students stand at different updates, one of them measured and one not."""
    keywords = (IMAGE if data.task.kind == "image" else TEXT) | SNAPSHOTS[case][1]
    run = start(data, seed, **keywords)
    drive(run, 4)
    run.reset_student(1, 60)
    drive(run, 2)
    run.reset_student(0, 61)
    return run


@pytest.mark.parametrize("case", SNAPSHOTS)
@pytest.mark.parametrize("observed", [False, True])
def test_a_restored_population_continues_to_the_last_bit(request, case, observed):
    data = request.getfixturevalue(SNAPSHOTS[case][0])
    run, undisturbed = (out_of_phase(data, case, 2) for _ in range(2))
    if observed:
        run.observe()
    run.memory[1] = {"gates": [0.5]}
    state = run.snapshot()
    seen = drive(run, 6)
    assert repr(drive(undisturbed, 6)) == repr(seen), "taking a snapshot changes nothing"
    other = out_of_phase(data, case, 30)
    other.restore(state)
    assert other.snapshot() == state
    assert other.memory[1] == {"gates": [0.5]}
    assert other.seeds.tolist()[:2] == [61, 60]
    assert other.update.tolist()[:2] == [0, 2]
    fork = other.fork()
    assert repr(drive(other, 6)) == repr(seen)
    assert digest(other) == digest(run) == digest(undisturbed)
    fork.reset_student(0, 5)
    drive(fork, 2)
    assert digest(other) == digest(run), "forks are independent"
    run.restore(state)  # back in time, too
    assert repr(drive(run, 6)) == repr(seen)
    assert digest(run) == digest(other)


ELSEWHERE = """
import sys
sys.path.insert(0, {tests!r})
import torch
from test_population_run import digest, drive, out_of_phase
from kd_env import tasks
from kd_env.distillation import EncodedTask
from kd_env.bank.bank import open_bank
from kd_env.teachers import load_pool

task = tasks.load("digits")
material = EncodedTask.of(task, open_bank(task, load_pool("digits/experts", task)))
torch.manual_seed(123)
run = out_of_phase(material, {case!r}, 40)
run.restore(open({path!r}, "rb").read())
drive(run, 6)
print(digest(run)[0])
"""


def test_another_process_continues_to_the_last_bit(digits_data, tmp_path):
    case = "first-order credit, dropout"
    run = out_of_phase(digits_data, case, 3)
    run.observe()
    (tmp_path / "state").write_bytes(run.snapshot())
    drive(run, 6)
    program = ELSEWHERE.format(tests=os.path.dirname(__file__), case=case, path=str(tmp_path / "state"))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=120)
    assert done.stdout.split() == [digest(run)[0]], done.stderr


def test_a_snapshot_of_other_many_is_refused(request):
    state = many(request, "extra reward loss").snapshot()
    with pytest.raises(InputError, match=r"these differ: num_students$"):
        many(request, "extra reward loss", num_students=2).restore(state)


def test_dropout_differs_between_rows_and_students_and_follows_from_the_seed(digits_data):
    def begin(seed):
        options = settings(digits_data.task, student="mlp(width=16,dropout=0.5)", num_students=2, batch_size=8, updates=30)
        return Distillation(digits_data, options, seed)

    torch.manual_seed(3)
    run, again, other = begin([4, 4]), begin([4, 4]), begin([5, 5])
    first = run.observe()
    assert (first.example_ids[:8] == first.example_ids[8:]).all(), "two students alike"
    torch.manual_seed(4)
    outer = torch.get_rng_state()
    off = (first.student.features == 0).numpy()
    masks = {row.tobytes() for row in off}
    assert len(masks) > 12, "rows have masks of their own"
    assert (off[:8] != off[8:]).any(), "and so have students"
    assert ((again.observe().student.features == 0).numpy() == off).all()
    seen = [drive(one, 8) for one in (run, again, other)]
    assert torch.equal(torch.get_rng_state(), outer), "the global generator is left alone"
    assert seen[0] == seen[1] != seen[2]
    assert digest(run) == digest(again)
    assert digest(run)[0] != digest(other)[0]
    kept = run.validate()
    assert [value.tolist() for value in run.validate()] == [value.tolist() for value in kept], "evaluation has no dropout"
    first, second = run.student.theta.detach()
    assert not torch.equal(first, second), "the masks made two students of one"


def test_a_student_that_begins_again_after_a_look_leaves_the_others_their_masks(digits_data):
    run, looked = (start(digits_data, 3, **IMAGE | {"student": "mlp(width=16,dropout=0.5)"}) for _ in range(2))
    for one in (run, looked):
        drive(one, 3)
    seen = looked.observe().student.features
    for one in (run, looked):
        one.reset_student(1, 9)
    again = looked.observe().student.features
    assert torch.equal(again[:8], seen[:8])
    assert torch.equal(again[16:], seen[16:])
    assert not torch.equal(again[8:16], seen[8:16])
    assert drive(looked, 4) == drive(run, 4)
    assert digest(looked) == digest(run)


def test_first_order_credit_repeats_the_masks_of_the_retained_pass(digits_data):
    keywords = IMAGE | {"student": "mlp(width=16,dropout=0.5)", "credit": "first_order", "reward_examples": 20, "optimizer": "sgd(lr=0.1)"}
    run = start(digits_data, **keywords)
    found = credit.first_order(run, ["response"])["response"]
    terms = run.per_teacher_loss("response", run.settings.temperature) / run.settings.batch_size
    direction = run.meter.held_out_gradient(run.student, run.update, 1)[0] * 0.1
    for row, k in ((0, 0), (5, 3), (8, 1), (23, 2)):
        (gradient,) = torch.autograd.grad(terms[row, k], run.student.parameters, retain_graph=True)
        assert float(found[row, k]) == pytest.approx(float((gradient * direction).sum()), rel=1e-9, abs=1e-15)


@pytest.mark.parametrize("refresh", [1, 5])
def test_a_gradient_of_the_heads_does_not_serve_for_all(digits_data, refresh):
    run = start(digits_data, **IMAGE)
    meter = run.meter
    meter.held_out_gradient(run.student, run.update, refresh, head_only=True)
    whole = meter.held_out_gradient(run.student, run.update, refresh)[0]
    fresh = start(digits_data, **IMAGE)
    assert torch.equal(whole, fresh.meter.held_out_gradient(fresh.student, fresh.update, refresh)[0])


def test_one_student_s_measurement_does_not_move_the_others(request):
    run = many(request, "adam, redrawn measurements")
    drive(run, 3)
    before, counted = run.meter.before.copy(), run.meter.measurements.copy()
    improvement = run.meter.improvement(run.student, np.array([False, True, False]))
    assert np.isnan(improvement).tolist() == [True, False, True]
    assert improvement[1] == 0.0, "it has not learned since"
    assert (run.meter.before == before).all()
    assert (run.meter.measurements - counted).tolist() == [0, 1, 0]


def test_what_does_not_batch_is_refused_by_name(digits_data, monkeypatch):
    from kd_env.models import networks

    class Mixing(networks.MLP):
        def __init__(self, task):
            super().__init__(64, task.num_classes)
            self.body.append(torch.nn.BatchNorm1d(24))

    monkeypatch.setitem(networks.NETWORKS, "mixing", Mixing)
    assert start(digits_data, student="mixing").num_students == 1
    with pytest.raises(InputError, match=r"num_students: body\.2 is a BatchNorm1d, which mixes the examples of a batch; use LayerNorm"):
        start(digits_data, student="mixing", num_students=2)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("student", ["mlp(width=8)", "tiny-vit(width=8,layers=1)"])
def test_on_cuda_a_population_follows_the_cpu_s_and_is_restored(digits_data, student):
    keywords = IMAGE | {"student": student, "credit": "first_order", "optimizer": "sgd(lr=0.02)"}
    host, device = (start(digits_data, 5, device=name, **keywords) for name in ("cpu", "cuda"))
    for run in (host, device):
        for update in range(6):
            if update == 3:
                run.reset_student(1, 40)
            run.observe()
            credit.first_order(run, ["response"])
            weights = weights_for(run).to(run.student.device)
            run.apply(Decision.response(weights, 1.0, 2.0), np.array([True, True, update != 4]))
    assert host.update.tolist() == device.update.tolist() == [6, 3, 5]
    torch.testing.assert_close(device.student.theta.detach().cpu(), host.student.theta.detach(), rtol=0, atol=1e-6)
    np.testing.assert_allclose(device.validate(), host.validate(), rtol=1e-6)
    twin = device.fork()
    assert torch.equal(device.observe().student.logits, twin.observe().student.logits)
    member = device.member(1)
    torch.testing.assert_close(member.observe().student.logits, device.observe().student.logits[8:16], rtol=1e-9, atol=1e-9)
