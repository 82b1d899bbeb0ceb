"""Unlabelled examples on the whole way, from the loss to a record: teachers teach them, and what reads labels learns nothing there."""

import math

import gymnasium as gym
import numpy as np
import pandas as pd
import pytest
import torch

from baselines import camkd
from baselines.best_single import BestSingle
from kd_env import tasks
from kd_env.bank.bank import open_bank
from kd_env.benchmark import records
from kd_env.benchmark.replay import replay
from kd_env.benchmark.run_trial import make_env, run_trial
from kd_env.benchmark.trial import Trial
from kd_env.distillation import Distillation, EncodedTask
from kd_env.distillation.settings import distillation_settings
from kd_env.errors import InputError
from kd_env.knowledge.label import teacher_ce
from kd_env.models.networks import build
from kd_env.policies import PolicyBatch, make_policy
from kd_env.tasks import loading
from kd_env.teachers import POOLS, NetworkTeacher, Pool
from kd_env.teachers.train_recipe import TeacherRecipe
from kd_env.types import Batch, Decision, ModelOutput

STUDENT = "tiny-bert(width=8,layers=1,dropout=0)"


def write(folder, name, count, groups="", label=True, start=0):
    """``count`` texts of that name; a text is of class ``fine`` or ``dull`` by turns."""
    columns = ["sentence", *(["label"] if label else []), *(["group"] if groups else [])]
    lines = ["\t".join(columns)]
    for i in range(start, start + count):
        kind = ("dull", "fine")[i % 2]
        lines.append("\t".join([f"{name} {i} {kind}", *([kind] if label else []), *([groups[i % len(groups)]] if groups else [])]))
    (folder / f"{name}.tsv").write_text("\n".join(lines) + "\n")


@pytest.fixture
def folder(tmp_path):
    """40 labelled texts to learn from, 200 without a label."""
    for name, count in (("train", 40), ("reward", 20), ("validation", 20), ("test", 20)):
        write(tmp_path, name, count)
    write(tmp_path, "unlabelled", 200, label=False)
    return tmp_path


@pytest.fixture
def grouped(tmp_path):
    for name, count in (("train", 40), ("reward", 20), ("validation", 20), ("test", 20)):
        write(tmp_path, name, count, "ab")
    return tmp_path


def data(folder, num_teachers=2):
    task = tasks.load(f"folder:{folder}(unlabelled=true)")
    teachers = tuple(NetworkTeacher(f"teacher{k}", build(STUDENT, task, k + 1), task, logit_scale=4.0) for k in range(num_teachers))
    return EncodedTask.of(task, open_bank(task, Pool("untrained", teachers)), STUDENT)


# the loss


def test_pure_distillation_reads_them_all(folder):
    encoded = data(folder)
    run = Distillation(encoded, distillation_settings(encoded.task, kd_weight=1.0, updates=15, batch_size=16), seed=0)
    seen, weights = [], torch.full((16, 2), 0.5)
    while not run.done.all():
        batch = run.observe()
        seen += batch.example_ids.tolist()
        assert bool((run.per_teacher_loss("response", 2.0) > 0).all()), "teachers teach labelled and unlabelled texts alike"
        run.apply(Decision.response(weights, 1.0, 2.0))
    assert sorted(seen) == list(range(240))


def test_the_label_leaves_them_alone(folder):
    encoded = data(folder)
    run = Distillation(encoded, distillation_settings(encoded.task, kd_weight=0.5, updates=3, batch_size=32), seed=0)
    batch = run.observe()
    known = batch.labels >= 0
    assert 0 < int(known.sum()) < 32
    weights = torch.full((32, 2), 0.5)
    losses = run.per_example_loss(Decision.response(weights, 0.5, 2.0))
    student, teachers = batch.student.logits.double(), batch.teacher_logits.double()
    for row in range(32):
        q = (student[row] / 2).softmax(0)
        kl = [4 * float((p * (p / q).log()).sum()) for p in (teachers[row] / 2).softmax(1)]
        expected = 0.5 * (kl[0] + kl[1]) / 2  # half of it the teachers', each half of that
        if known[row]:
            expected += 0.5 * -float(student[row].softmax(0)[batch.labels[row]].log())
        assert float(losses[row].detach()) == pytest.approx(expected, rel=1e-4)
    outcome = run.apply(Decision.response(weights, 0.5, 2.0))
    assert outcome.loss[0] == pytest.approx(float(losses.detach().mean()), rel=1e-5)
    assert bool((outcome.student_ce[~known] == 0).all())
    assert bool((outcome.student_ce[known] > 0).all())


def test_labels_alone_teach_nothing_where_there_are_none(folder):
    encoded = data(folder)
    run = Distillation(encoded, distillation_settings(encoded.task, kd_weight=0.0, updates=3, batch_size=32), seed=0)
    unknown = run.observe().labels < 0
    output = run.student_output()
    (gradient,) = torch.autograd.grad(run.per_teacher_loss("label", 1.0).sum(), output.logits, retain_graph=True)
    assert bool((gradient[unknown] == 0).all())
    assert bool((gradient[~unknown] != 0).any(1).all())


def test_several_students_at_once_learn_what_each_would_alone(folder):
    encoded = data(folder)
    options = {"kd_weight": 0.5, "updates": 4, "batch_size": 16, "precision": "float64"}
    decision = Decision.response(torch.full((16, 2), 0.5, dtype=torch.float64), 0.5, 2.0)
    both = Decision.response(torch.full((32, 2), 0.5, dtype=torch.float64), 0.5, 2.0)
    together = Distillation(encoded, distillation_settings(encoded.task, num_students=2, **options), seed=[3, 8])
    alone = [Distillation(encoded, distillation_settings(encoded.task, **options), seed=seed) for seed in (3, 8)]
    for _ in range(4):
        losses = [float(run.apply(decision).loss[0]) for run in alone]
        assert together.apply(both).loss.tolist() == pytest.approx(losses, rel=1e-9)


def test_every_teacher_costs_nothing_there_so_a_weighting_is_uniform():
    logits = torch.tensor([[[2.0, 0.0], [0.0, 3.0]]] * 2)
    ce = teacher_ce(logits, torch.tensor([-1, 0]))
    assert ce[0].tolist() == [0.0, 0.0]
    assert ce[1].tolist() == pytest.approx([math.log(1 + math.exp(-2)), math.log(1 + math.exp(3))])
    weights = camkd.weights(logits, torch.tensor([-1, 0]))
    assert weights[0].tolist() == [0.5, 0.5]  # softmax of zeros is (1/2, 1/2); (1 - 1/2) / (2 - 1)
    assert weights[1, 0] > 0.9


def test_best_single_takes_any_teacher_where_it_cannot_know():
    policy = object.__new__(BestSingle)
    policy.rng = np.random.default_rng(0)
    rows = 3000
    logits = torch.tensor([[0.0, 3.0], [2.0, 0.0], [1.0, 0.0]]).expand(rows, 3, 2)
    labels = torch.arange(rows) % 2 - 1  # unknown and class 0 by turns: of class 0, teacher 1 is best
    student = ModelOutput(logits[:, 0], logits[:, 0])
    batch = Batch(np.zeros(1), np.zeros(1), np.arange(rows), labels, logits, (), student)
    weights = policy.decide(PolicyBatch(batch, None, BestSingle.access, "best_single"))
    assert weights.shape == (rows, 3)
    assert torch.equal(weights.sum(1), torch.ones(rows))
    chosen = weights.argmax(1).numpy()
    assert set(chosen[1::2].tolist()) == {1}
    assert np.bincount(chosen[::2], minlength=3) / 1500 == pytest.approx([1 / 3] * 3, abs=0.04)


@pytest.mark.parametrize("name", ["tckd", "nckd"])
def test_types_that_need_the_label_are_refused(name, folder):
    encoded = data(folder)
    with pytest.raises(InputError, match=f"{name} reads the training labels, and task .* has examples without a label; leave it out"):
        Distillation(encoded, distillation_settings(encoded.task, kd_weight=0.5, updates=3, knowledge=f"response,{name}"), seed=0)


# teachers, policies, records


@pytest.fixture
def quick_pool(monkeypatch):
    recipes = tuple(TeacherRecipe(name, STUDENT, epochs=1, seed=seed) for seed, name in enumerate(("one", "two")))
    monkeypatch.setitem(POOLS, "text/sizes", type(POOLS["text/sizes"])("quick", recipes))
    expert = TeacherRecipe("expert", STUDENT, epochs=1)
    monkeypatch.setitem(POOLS, "text/experts", type(POOLS["text/sizes"])("quick", expert=expert))


@pytest.mark.parametrize("policy", ["best_single", "reinforce", "akd(training_episodes=1)"])
def test_a_trial_is_finite_its_trace_is_honest_and_it_replays(policy, grouped, quick_pool, tmp_path):
    write(grouped, "unlabelled", 200, label=False)
    name = f"folder:{grouped}(unlabelled=true)"
    options = {"student": STUDENT, "updates": 6, "kd_weight": 0.5}
    record = run_trial(Trial(name, policy, 0, settings=options), tmp_path / "out")
    numbers = [record[key] for key in ("test", "validation", "reward_split", "reward_sum", "weight_entropy")]
    assert np.isfinite([*numbers, *(point["train_loss"] for point in record["curve"])]).all()
    assert not record["diverged"]
    (file,) = (tmp_path / "out" / "traces").glob("*.parquet")
    trace = pd.read_parquet(file)
    task = tasks.load(name)
    unknown = task.train.labels[trace["example_id"].to_numpy()] < 0
    assert 0 < unknown.sum() < len(trace)
    assert (trace["student_ce"].isna().to_numpy() == unknown).all()
    assert ((trace["group"].to_numpy() == -1) == unknown).all()
    records.append(tmp_path / "out", record)
    assert replay(tmp_path / "out", record["trial"]) == []


def test_the_oracle_needs_their_groups(grouped, quick_pool):
    for groups, known in (("ab", True), ("", False)):
        write(grouped, "unlabelled", 100, groups, label=False)
        loading._loaded.cache_clear()
        env = make_env(Trial(f"folder:{grouped}(unlabelled=true)", "oracle", 0, settings={"student": STUDENT, "updates": 2}))
        if known:
            observation, _ = env.reset(seed=0)
            rows = env.selection.distillation.observe().example_ids
            assert make_policy("oracle", env).act(observation).tolist() == env.selection.data.task.train.groups[rows].tolist()
        else:
            with pytest.raises(InputError, match=r"policy 'oracle': unlabelled examples of task .* have no group; give them one"):
                make_policy("oracle", env)


@pytest.mark.parametrize("credit", ["head", "first_order"])
def test_credit_and_observations_stay_finite(credit, folder, quick_pool):
    options = {"student": STUDENT, "updates": 3, "kd_weight": 0.5, "credit": credit, "normalize_credit": False}
    env = gym.make_vec(
        "kd_env/TeacherSelection-v0",
        num_envs=32,
        vectorization_mode="vector_entry_point",
        task=f"folder:{folder}(unlabelled=true)",
        observe_labels=True,
        **options,
    ).unwrapped
    observation, _ = env.reset(seed=0)
    for _ in range(3):
        assert all(np.isfinite(block).all() for block in observation.values())
        observation, reward, _, _, _ = env.step(np.ones((32, 2), dtype=np.int8))
        assert np.isfinite(reward).all()
