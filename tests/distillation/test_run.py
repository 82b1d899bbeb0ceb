"""The heart: its update is a plain training step, and its state can be taken away and brought back."""

import dataclasses
import hashlib
import json
import os
import random
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import save

from kd_env.distillation import Distillation
from kd_env.envs import credit
from kd_env.envs.settings import settings
from kd_env.errors import InputError
from kd_env.models.networks import build
from kd_env.types import Decision

OPTIMIZERS = {
    "sgd(lr=0.1)": lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9),
    "adam(lr=0.003)": lambda parameters: torch.optim.Adam(parameters, lr=0.003),
    "adamw(lr=0.003,weight_decay=0.1)": lambda parameters: torch.optim.AdamW(parameters, lr=0.003, weight_decay=0.1),
}


def start(data, seed=0, **keywords):
    keywords = {"batch_size": 8, "updates": 30, "reward_labels": 40} | keywords
    return Distillation(data, settings(data.task, **keywords), seed)


def weights_for(run):
    """Random weights that follow from each student's update; every fifth instance is taught by nobody."""
    parts = []
    for update in run.update.tolist():
        weights = np.random.default_rng([11, update]).dirichlet(np.ones(run.num_teachers), run.settings.batch_size)
        weights[:: 5 + update % 3] = 0.0
        parts.append(weights)
    return torch.from_numpy(np.concatenate(parts)).to(run.student.dtype)


def decide(run):
    """Every knowledge type with the random weights, and the label where the setting has it."""
    kd_weight, weights = run.settings.kd_weight, weights_for(run)
    strengths = {name: term.strength * kd_weight for name, term in run.terms.items()} | {"label": 1.0 - kd_weight}
    return Decision(dict.fromkeys(run.terms, weights), strengths, run.settings.temperature)


def drive(run, updates):
    """Teach, with credit and reward as the settings say; all that was seen on the way."""
    seen, names = [], list(run.terms)
    for _ in range(updates):
        given = None if run.settings.credit == "shared" else credit.CREDITS[run.settings.credit](run, names)
        outcome = run.apply(decide(run))
        improvement = None if outcome.improvement is None else outcome.improvement.tolist()
        credited = given and {name: one.double().sum().item() for name, one in given.items()}
        seen.append((outcome.loss.tolist(), outcome.student_ce.tolist(), improvement, credited))
    return seen


def digest(run):
    """SHA-256 of weights and optimizer state, and what was counted."""
    content = hashlib.sha256()
    for name, value in sorted(run.student.state().items()):
        content.update(name.encode() + value.detach().numpy().tobytes())
    counts = run.update, run.state.forward_examples, run.meter.forward_examples, run.meter.measurements
    return content.hexdigest(), *(count.tolist() for count in counts)


def plain_loss(logits, teacher_logits, labels, weights, kd_weight, temperature):
    """The loss written out again: sums over classes, instance by instance."""
    total = 0.0
    for b in range(len(logits)):
        q, z = (logits[b] / temperature).softmax(0), logits[b]
        for k in range(weights.shape[1]):
            p = (teacher_logits[b, k] / temperature).softmax(0)
            total = total + kd_weight * weights[b, k] * temperature**2 * (p * (p.log() - q.log())).sum()
        total = total + (1 - kd_weight) * (z.exp().sum().log() - z[labels[b]])
    return total / len(logits)


@pytest.mark.parametrize("kd_weight", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize(
    ("data", "student"),
    [
        ("digits_data", "mlp(width=12)"),
        ("digits_data", "tiny-vit(width=8,layers=1)"),
        ("text_data", "tiny-bert(width=8,layers=1,dropout=0)"),
    ],
)
def test_an_update_through_the_retained_forward_is_a_plain_training_step(request, data, student, kd_weight, optimizer):
    given = request.getfixturevalue(data)
    run = start(given, seed=3, student=student, kd_weight=kd_weight, temperature=3.0, optimizer=optimizer, precision="float64")
    network = build(student, given.task, 3).double()
    plain = OPTIMIZERS[optimizer](list(network.parameters()))
    for _ in range(4):
        rows, weights = run.observe().example_ids, weights_for(run)
        outcome = run.apply(Decision.response(weights, kd_weight, 3.0))
        inputs = run.student.cast({name: tensor[rows] for name, tensor in given.inputs["train"].items()})
        said = torch.from_numpy(given.bank.gather("train", rows).logits).double()
        loss = plain_loss(network(**inputs).logits, said, given.task.train.labels[rows], weights, kd_weight, 3.0)
        plain.zero_grad()
        loss.backward()
        plain.step()
        assert outcome.loss.tolist() == pytest.approx([float(loss.detach())], abs=1e-6)
    for own, reference in zip(run.student.network.parameters(), network.parameters(), strict=True):
        torch.testing.assert_close(own, reference, rtol=0, atol=1e-6)
    moved = own - list(build(student, given.task, 3).parameters())[-1]
    assert moved.abs().max() > 1e-3, "something was learned"


def test_in_single_precision_too(digits_data):
    run = start(digits_data, student="mlp(width=12)", kd_weight=0.5, optimizer="sgd(lr=0.1)")
    network = build("mlp(width=12)", digits_data.task, 0)
    plain = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    for _ in range(6):
        rows, weights = run.observe().example_ids, weights_for(run)
        run.apply(Decision.response(weights, 0.5, 2.0))
        said = torch.from_numpy(digits_data.bank.gather("train", rows).logits)
        logits = network(digits_data.inputs["train"]["pixel_values"][rows]).logits
        plain.zero_grad()
        plain_loss(logits, said, digits_data.task.train.labels[rows], weights, 0.5, 2.0).backward()
        plain.step()
    for own, reference in zip(run.student.network.parameters(), network.parameters(), strict=True):
        torch.testing.assert_close(own, reference, rtol=0, atol=1e-6)


def test_an_extra_reward_loss_is_the_plain_cross_entropy(digits_data):
    run = start(digits_data, student="mlp(width=12)", reward_ce=0.3, reward_labels=6, optimizer="sgd(lr=1)", precision="float64")
    network = build("mlp(width=12)", digits_data.task, 0).double()
    drive(run, 1)  # 6 labels are fewer than a mini-batch: all of them are used
    assert run.meter.rows.shape == (1, 6)
    images, labels = (
        digits_data.inputs["reward"]["pixel_values"][run.meter.rows[0]].double(),
        digits_data.labels["reward"][run.meter.rows[0]],
    )
    rows = Distillation(digits_data, run.settings, 0).observe().example_ids
    logits = network(digits_data.inputs["train"]["pixel_values"][rows].double()).logits
    said = torch.from_numpy(digits_data.bank.gather("train", rows).logits).double()
    weights = weights_for(start(digits_data, precision="float64"))
    loss = plain_loss(logits, said, digits_data.task.train.labels[rows], weights, 1.0, 2.0)
    (loss + 0.3 * torch.nn.functional.cross_entropy(network(images).logits, labels)).backward()
    for own, parameter in zip(run.student.network.parameters(), network.parameters(), strict=True):
        torch.testing.assert_close(own, parameter - parameter.grad, rtol=0, atol=1e-10)


def test_nobody_at_full_strength_gives_no_gradient(digits_data):
    run = start(digits_data, kd_weight=1.0, optimizer="sgd(lr=1)")
    before = [parameter.detach().clone() for parameter in run.student.network.parameters()]
    outcome = run.apply(Decision.response(torch.zeros(8, 4), 1.0, 2.0))
    assert outcome.loss.tolist() == [0.0]
    assert all(not parameter.grad.any() for parameter in run.student.network.parameters())
    assert all(torch.equal(a, b) for a, b in zip(before, run.student.network.parameters(), strict=True))


@pytest.mark.parametrize("kd_weight", [0.0, 0.4])
def test_nobody_below_full_strength_leaves_the_label(digits_data, kd_weight):
    run = start(digits_data, optimizer="sgd(lr=1)", precision="float64")
    rows, network = run.observe().example_ids, build(run.settings.student, digits_data.task, 0).double()
    outcome = run.apply(Decision.response(torch.zeros(8, 4, dtype=torch.float64), kd_weight, 2.0))
    labels = digits_data.labels["train"][rows]
    ce = torch.nn.functional.cross_entropy(network(digits_data.inputs["train"]["pixel_values"][rows].double()).logits, labels)
    ((1 - kd_weight) * ce).backward()
    assert outcome.loss.tolist() == pytest.approx([(1 - kd_weight) * float(ce.detach())], rel=1e-10)
    for own, parameter in zip(run.student.network.parameters(), network.parameters(), strict=True):
        torch.testing.assert_close(own, parameter - parameter.grad, rtol=0, atol=1e-10)


def test_at_full_strength_training_labels_teach_nothing(digits_data):
    labels = digits_data.labels | {"train": (digits_data.labels["train"] + 1) % 10}
    runs = [start(data) for data in (digits_data, dataclasses.replace(digits_data, labels=labels))]
    for run in runs:
        drive(run, 5)
    assert digest(runs[0])[0] == digest(runs[1])[0]


def test_strengths_may_differ_by_instance(digits_data):
    run = start(digits_data, precision="float64")
    weights, strengths = weights_for(run), torch.linspace(0, 1, 8, dtype=torch.float64)
    terms = run.per_example_loss(Decision({"response": weights}, {"response": strengths, "label": 2.0 - strengths}, 3.0)).detach()
    features, response = run.observe(), run.per_teacher_loss("response", 3.0).detach()
    ce = torch.nn.functional.cross_entropy(features.student.logits, features.labels, reduction="none")
    for b in range(8):
        expected = strengths[b] * (weights[b] * response[b]).sum() + (2 - strengths[b]) * ce[b]
        assert float(terms[b]) == pytest.approx(float(expected), rel=1e-12)


def test_weights_may_carry_a_gradient(digits_data):
    run = start(digits_data, precision="float64")
    weights = weights_for(run).requires_grad_()
    run.per_example_loss(Decision.response(weights, 0.5, 2.0)).sum().backward()
    torch.testing.assert_close(weights.grad, 0.5 * run.per_teacher_loss("response", 2.0).detach(), rtol=1e-12, atol=0)


@pytest.mark.parametrize("student", ["mlp", "mlp(dropout=0.5)"])
def test_observing_again_costs_nothing_and_changes_nothing(digits_data, student):
    once, often = start(digits_data, student=student), start(digits_data, student=student)
    for run, times in ((once, 1), (often, 4)):
        for update in range(3):
            seen = [run.observe() for _ in range(times)]
            assert all(one is seen[0] for one in seen)
            assert run.state.forward_examples.tolist() == [8 * (update + 1)]
            drive(run, 1)
    assert digest(once) == digest(often)


def test_what_is_observed_is_what_the_student_and_the_bank_say(digits_data):
    run = start(digits_data, student="mlp(width=12)", updates=4)
    drive(run, 1)
    features = run.observe()
    rows = features.example_ids
    assert (features.update.tolist(), features.progress.tolist()) == ([1], [0.25])
    assert torch.equal(features.labels, digits_data.labels["train"][rows])
    said = digits_data.bank.gather("train", rows)
    assert (features.teacher_logits.numpy() == said.logits).all()
    assert [f.shape for f in features.teacher_features] == [(8, 128)] * 4
    logits = run.student.predict({"pixel_values": digits_data.inputs["train"]["pixel_values"][rows]})
    torch.testing.assert_close(features.student.logits, logits)
    assert not features.student.logits.requires_grad


def test_run_again_is_the_same_mini_batch_after_its_update(digits_data):
    run = start(digits_data, student="mlp(width=12,dropout=0.3)")
    rows, before = run.observe().example_ids, run.observe().student.logits
    drive(run, 1)
    again = run.logits_after_update()
    torch.testing.assert_close(again, run.student.predict({"pixel_values": digits_data.inputs["train"]["pixel_values"][rows]}))
    assert not torch.equal(again, before)
    assert run.state.forward_examples.tolist() == [16]


def test_an_epoch_shows_every_example_at_most_once_and_the_next_in_another_order(text_data):
    run = start(text_data, student="tiny-bert(width=8,layers=1,dropout=0)", batch_size=48, updates=6)
    shown = []
    while not run.done:
        shown.append(run.observe().example_ids)
        drive(run, 1)
    epochs = [np.concatenate(shown[:3]), np.concatenate(shown[3:])]
    assert all(len(set(epoch)) == 3 * 48 for epoch in epochs)
    assert (epochs[0] != epochs[1]).any()


def test_the_budget_ends_the_run(digits_data):
    run = start(digits_data, updates=2)
    drive(run, 2)
    assert run.done.tolist() == [True]
    with pytest.raises(AssertionError, match="the budget is spent"):
        drive(run, 1)


def test_seeds_decide_everything(digits_data):
    runs = [start(digits_data, seed=seed, student="mlp(dropout=0.3)") for seed in (5, 5, 6)]
    seen = [drive(run, 4) for run in runs]
    assert seen[0] == seen[1] != seen[2]
    assert digest(runs[0]) == digest(runs[1])
    assert digest(runs[0])[0] != digest(runs[2])[0]


def test_more_examples_in_a_batch_than_there_are_is_refused(digits_data):
    with pytest.raises(InputError, match="batch_size=3589 is more than the 3588"):
        start(digits_data, batch_size=3589)


CASES = {
    "sgd": {"optimizer": "sgd(lr=0.05,warmup=0.3,decay=linear)"},
    "adam, dropout": {"student": "mlp(width=12,dropout=0.3)", "optimizer": "adam(lr=0.01,decay=linear)"},
    "adamw": {"optimizer": "adamw(lr=0.01,weight_decay=0.1,warmup=0.5)", "kd_weight": 0.5, "reward_every": 3},
    "redrawn measurements": {"reward_examples": 20, "measure": "metric"},
    "stale credit, dropout": {"student": "mlp(width=12,dropout=0.3)", "credit": "first_order", "credit_refresh": 3, "reward_examples": 20},
    "stale head credit": {"credit": "head", "credit_refresh": 4},
    "reward labels, dropout": {"student": "mlp(width=12,dropout=0.3)", "reward_ce": 0.5},
    "mixed reward": {"reward": "mixed", "reward_every": 2},
    "float64": {"precision": "float64", "credit": "first_order"},
    "tiny-vit, dropout": {"student": "tiny-vit(width=8,layers=1,dropout=0.2)"},
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("observed", [False, True])
@pytest.mark.parametrize("at", [0, 8])
def test_a_restored_run_continues_to_the_last_bit(digits_data, case, observed, at):
    run = start(digits_data, seed=2, **CASES[case])
    undisturbed = start(digits_data, seed=2, **CASES[case])
    drive(run, at)
    drive(undisturbed, at)
    if observed:
        run.observe()
    state = run.snapshot()
    seen = drive(run, 7)
    assert drive(undisturbed, 7) == seen, "taking a snapshot changes nothing"
    other = start(digits_data, seed=9, **CASES[case])
    drive(other, 3)
    other.restore(state)
    assert other.snapshot() == state
    assert other.seeds.tolist() == [2]
    assert drive(other, 7) == seen
    assert digest(other) == digest(run) == digest(undisturbed)
    run.restore(state)  # back in time, too
    assert drive(run, 7) == seen
    assert digest(run) == digest(other)


def test_text_students_are_restored_too(text_data):
    run = start(text_data, student="tiny-bert(width=8,layers=1,dropout=0.2)", reward_labels=20)
    drive(run, 3)
    run.observe()
    state, seen = run.snapshot(), drive(run, 3)
    other = start(text_data, seed=1, student="tiny-bert(width=8,layers=1,dropout=0.2)", reward_labels=20)
    other.restore(state)
    assert drive(other, 3) == seen
    assert digest(other) == digest(run)


ELSEWHERE = """
import sys
sys.path.insert(0, {tests!r})
import torch
from test_run import CASES, digest, drive, start
from kd_env import tasks
from kd_env.distillation import EncodedTask
from kd_env.bank.bank import open_bank
from kd_env.teachers import load_pool

task = tasks.load("digits")
material = EncodedTask.of(task, open_bank(task, load_pool("digits/experts", task)))
torch.manual_seed(123)
run = start(material, seed=4, **CASES[{case!r}])
run.restore(open({path!r}, "rb").read())
drive(run, 6)
print(digest(run)[0])
"""


@pytest.mark.parametrize("case", ["stale credit, dropout"])
def test_another_process_continues_to_the_last_bit(digits_data, tmp_path, case):
    run = start(digits_data, **CASES[case])
    drive(run, 4)
    run.observe()
    (tmp_path / "state").write_bytes(run.snapshot())
    drive(run, 6)
    program = ELSEWHERE.format(tests=os.path.dirname(__file__), case=case, path=str(tmp_path / "state"))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=120)
    assert done.stdout.split() == [digest(run)[0]], done.stderr


def test_forks_are_independent(digits_data):
    run = start(digits_data, student="mlp(width=12,dropout=0.3)")
    drive(run, 3)
    run.observe()
    before = digest(run)
    one, two = run.fork(), run.fork()
    seen = drive(one, 4)
    assert digest(run) == before
    assert digest(two) == before
    two.apply(Decision.response(torch.zeros(8, 4), 1.0, 2.0))
    assert drive(run, 4) == seen
    assert digest(run) == digest(one)
    assert digest(two)[0] != digest(run)[0]


def test_a_finished_run_can_be_restored(digits_data):
    run = start(digits_data, updates=2)
    drive(run, 2)
    other = start(digits_data, updates=2)
    other.restore(run.snapshot())
    assert other.done.tolist() == [True]
    assert [value.tolist() for value in other.validate()] == [value.tolist() for value in run.validate()]


def test_a_snapshot_is_tensors_and_json_without_pickle(digits_data):
    run = start(digits_data, student="mlp(width=12,dropout=0.3)", credit="first_order")
    drive(run, 2)
    state = run.snapshot()
    length = int.from_bytes(state[:8], "little")
    header = json.loads(state[8 : 8 + length])
    assert {entry["dtype"] for name, entry in header.items() if name != "before"} == {"F32", "U8"}
    assert header["before"]["dtype"] == "F64"
    assert 8 + length + max(entry["data_offsets"][1] for entry in header.values()) == len(state), "and nothing after them"
    begin, end = header["state"]["data_offsets"]
    content = json.loads(state[8 + length + begin : 8 + length + end])
    assert (content["seeds"], content["update"]) == ([0], [2])


def test_what_is_not_a_snapshot_is_refused(digits_data):
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
    ("keywords", "named"),
    [
        ({"temperature": 3.0}, "temperature"),
        ({"student": "mlp(width=13)"}, "student"),
        ({"batch_size": 9, "kd_weight": 0.5}, "batch_size, kd_weight"),
    ],
)
def test_a_snapshot_of_other_settings_is_refused_by_name(digits_data, keywords, named):
    state = start(digits_data).snapshot()
    with pytest.raises(InputError, match=f"of another run; these differ: {named}$"):
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


@pytest.mark.parametrize("case", ["stale credit, dropout", "reward labels, dropout", "redrawn measurements"])
def test_global_generators_neither_matter_nor_notice(digits_data, case):
    def whole_run(disturb):
        run = start(digits_data, **CASES[case])
        for _ in range(12):
            if disturb:
                torch.rand(3)
                np.random.rand(3)  # noqa: NPY002
            run.observe()
            drive(run, 1)
        run.validate()
        run.restore(run.fork().snapshot())
        return digest(run)

    def states():
        return torch.get_rng_state().tolist(), str(np.random.get_state()), random.getstate()  # noqa: NPY002

    torch.manual_seed(1)
    before = states()
    first = whole_run(disturb=False)
    assert states() == before
    torch.manual_seed(2)
    assert whole_run(disturb=True) == first


def test_dropout_masks_differ_from_update_to_update(digits_data):
    run = start(digits_data, student="mlp(width=12,dropout=0.5)", optimizer="sgd(lr=1e-12)", precision="float64")
    off = []
    for _ in range(3):
        off.append((run.observe().student.features == 0).numpy())
        drive(run, 1)
    assert (off[0] != off[1]).any()
    assert (off[1] != off[2]).any()


@pytest.mark.parametrize("student", ["mlp", "mlp(width=12,dropout=0.3)"])
def test_divergence_ends_the_run_and_no_step_is_taken_from_it(digits_data, student):
    run = start(digits_data, student=student, optimizer="sgd(lr=1e30)")
    outcomes = []
    while not run.done:
        run.observe()
        outcomes.append(run.apply(Decision.response(torch.full((8, 4), 0.25), 1.0, 2.0)))
    assert [outcome.diverged.tolist() for outcome in outcomes] == [[False]] * (len(outcomes) - 1) + [[True]]
    assert len(outcomes) < 5
    measured = [outcome.improvement for outcome in outcomes]
    assert all(np.isfinite(improvement).all() for improvement in measured[:-1]), "due at every update, and finite before divergence"
    assert measured[-1] is None or np.isnan(measured[-1]).all(), "what diverged is paid no improvement"
    assert run.diverged.tolist() == [True]


def test_a_loss_that_is_not_finite_takes_no_step(digits_data):
    run = start(digits_data, reward_every=0)
    before = [parameter.detach().clone() for parameter in run.student.network.parameters()]
    outcome = run.apply(Decision.response(torch.full((8, 4), float("nan")), 1.0, 2.0))
    assert outcome.diverged.tolist() == [True]
    assert run.done.tolist() == [True]
    assert all(torch.equal(a, b) for a, b in zip(before, run.student.network.parameters(), strict=True))


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("student", ["mlp(width=12,dropout=0.3)", "tiny-vit(width=8,layers=1,dropout=0.2)"])
def test_on_cuda_a_run_follows_the_cpu_s_and_is_restored(digits_data, student):
    without = student.replace("0.3", "0").replace("0.2", "0")
    keywords = {"student": without, "precision": "float64", "credit": "first_order", "optimizer": "sgd(lr=0.05)"}
    host, device = start(digits_data, device="cpu", **keywords), start(digits_data, device="cuda", **keywords)
    for run in (host, device):
        for _ in range(4):
            credit.first_order(run, ["response"])
            weights = weights_for(run).to(run.student.device)
            run.apply(Decision.response(weights, 1.0, 2.0))
    for one, two in zip(host.student.network.parameters(), device.student.network.parameters(), strict=True):
        torch.testing.assert_close(one, two.cpu(), rtol=0, atol=1e-6)
    run = start(digits_data, device="cuda", student=student)
    run.observe()
    twin = run.fork()
    assert torch.equal(run.observe().student.logits, twin.observe().student.logits)
