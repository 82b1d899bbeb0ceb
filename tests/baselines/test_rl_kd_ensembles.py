"""RL-KD's fixed weights: by dev score and by logistic regression, by hand, and which labels they read."""

import math

import numpy as np
import pytest
import torch
from weighing import SMALL_TEXT, acted_weights, env_and_policy

from baselines import dev_weighted, lr_ensemble
from baselines.dev_weighted import DevWeighted
from baselines.lr_dev import LRDev
from baselines.lr_ensemble import LREnsemble, coefficients
from kd_env.benchmark.run_trial import run_trial
from kd_env.benchmark.trial import Trial
from kd_env.errors import InputError
from kd_env.models.networks import build
from kd_env.policies import make_policy
from kd_env.policies.context import PolicyContext
from kd_env.teachers import NetworkTeacher, Pool
from kd_env.testing import check_policy

POLICIES = {"dev_weighted": DevWeighted, "lr_ensemble": LREnsemble, "lr_dev": LRDev}


def answering(answers, classes=3, sure=4.0):
    """Logits ``[n, K, C]`` of teachers who answer ``answers [n, K]``."""
    return sure * torch.nn.functional.one_hot(torch.tensor(answers), classes).double()


def skilled(*skills, rows=300, classes=4, seed=0):
    """Teachers who are right with the probability ``skills``, and labels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(classes, size=rows)
    wrong = (labels[:, None] + rng.integers(1, classes, size=(rows, len(skills)))) % classes
    answers = np.where(rng.random((rows, len(skills))) < skills, labels[:, None], wrong)
    return answering(answers.tolist(), classes), torch.from_numpy(labels)


# dev_weighted


def test_dev_weights_by_hand():
    # right 4, 2 and 0 times of 4
    logits = answering([[0, 0, 1], [1, 1, 2], [2, 1, 0], [0, 2, 2]])
    assert dev_weighted.weights(logits, torch.tensor([0, 1, 2, 0])).tolist() == pytest.approx([2 / 3, 1 / 3, 0.0])
    assert dev_weighted.weights(logits[:, :2], torch.tensor([0, 1, 2, 0])).tolist() == pytest.approx([2 / 3, 1 / 3])


def test_dev_weights_are_uniform_where_nobody_is_right():
    assert dev_weighted.weights(answering([[1, 2], [1, 2]]), torch.tensor([0, 0])).tolist() == [0.5, 0.5]


# logistic regression


def test_a_regression_by_hand():
    """One teacher, two instances of labels 0 and 1, sure of them by .9 to .1: the loss is ln(1 + exp(-.8 a)) + r a^2 / 2.

    Its slope ``r a - .8 / (1 + exp(.8 a))`` is zero at a = 1 for r = .8 / (1 + exp(.8)); the intercepts stay zero by symmetry.
    """
    logits = torch.tensor([[[0.9, 0.1]], [[0.1, 0.9]]]).log()
    a, intercepts = coefficients(logits, torch.tensor([0, 1]), ridge=0.8 / (1 + math.exp(0.8)))
    assert a.tolist() == pytest.approx([1.0], abs=1e-6)
    assert intercepts.tolist() == pytest.approx([0.0, 0.0], abs=1e-6)


def test_intercepts_by_hand():
    """Teachers who say nothing: a is 0, and the intercepts have ``softmax(b) = share - r b``."""
    a, intercepts = coefficients(torch.zeros(4, 2, 3), torch.tensor([0, 0, 0, 1]), ridge=0.01)
    shares = np.array([0.75, 0.25, 0.0])
    assert a.abs().max() < 1e-9, "all classes' scores rise alike with a, so the ridge alone decides"
    assert intercepts.softmax(0).tolist() == pytest.approx((shares - 0.01 * intercepts.numpy()).tolist(), abs=1e-6)


@pytest.mark.parametrize("skills", [(0.9, 0.5), (0.8, 0.6, 0.3), (0.7, 0.1, 0.7, 0.25)])
def test_the_slope_is_zero_at_the_coefficients(skills):
    logits, labels = skilled(*skills)
    a, intercepts = coefficients(logits, labels, ridge=0.01)
    p = logits.softmax(2).numpy()
    scores = (p * a.numpy()[:, None]).sum(1) + intercepts.numpy()
    error = np.exp(scores) / np.exp(scores).sum(1, keepdims=True) - np.eye(4)[labels]  # [n, C]
    assert (p * error[:, None]).sum(2).mean(0) + 0.01 * a.numpy() == pytest.approx(np.zeros(len(skills)), abs=1e-6)
    assert error.mean(0) + 0.01 * intercepts.numpy() == pytest.approx(np.zeros(4), abs=1e-6)


def test_the_better_teacher_has_more_and_one_worse_than_chance_nothing():
    weights = lr_ensemble.weights(*skilled(0.9, 0.6, 0.1))
    assert weights[0] > weights[1] > 0.0
    assert weights[2] == 0.0
    assert float(weights.sum()) == pytest.approx(1.0)


def test_the_weights_are_uniform_where_no_coefficient_is_positive():
    logits, labels = skilled(0.1, 0.05)
    assert (coefficients(logits, labels)[0] < 0.0).all()
    assert lr_ensemble.weights(logits, labels).tolist() == [0.5, 0.5]


@pytest.mark.parametrize("weigh", [dev_weighted.weights, lr_ensemble.weights])
def test_weights_follow_a_permutation_and_duplicates_are_equal(weigh):
    logits, labels = skilled(0.9, 0.6, 0.4)
    weights = weigh(logits[:, [0, 1, 2, 1]], labels)
    assert weights[1].item() == pytest.approx(weights[3].item(), abs=1e-6)
    assert weigh(logits[:, [2, 1, 0, 1]], labels).tolist() == pytest.approx(weights[[2, 1, 0, 3]].tolist(), abs=1e-5)


@pytest.mark.parametrize("weigh", [dev_weighted.weights, lr_ensemble.weights])
def test_extreme_teachers_and_a_class_without_examples_are_finite(weigh):
    logits = torch.tensor([[[1e4, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 1e4, 0.0]]] * 3)
    weights = weigh(logits, torch.tensor([0, 0, 0]))
    assert weights.dtype == torch.float32
    assert weights.isfinite().all()
    assert weights.argmax() == 0
    assert weigh(logits[:, :1], torch.tensor([0, 1, 0])).tolist() == [1.0]


# which labels they read


def fitted(rule, env, seed=0):
    """The weights that ``rule`` fits."""
    return make_policy(rule, env, seed).rule.teacher_weights


def poisoned(env, split, keep):
    """Make every label of ``split`` wrong but those of ``keep``."""
    labels = env.selection.data.labels
    wrong = np.setdiff1d(np.arange(len(labels[split])), keep)
    labels[split] = labels[split].clone()
    labels[split][wrong] = (labels[split][wrong] + 1) % 10


@pytest.mark.parametrize("name", ["dev_weighted", "lr_dev"])
def test_no_reward_label_is_read_that_the_run_does_not_have(name, monkeypatch):
    env, honest = env_and_policy(name, reward_labels=64)
    labelled = env.selection.distillation.reward_split.positions[0]
    assert len(labelled) == 64
    # drawn by class, so poison would move it
    monkeypatch.setattr("kd_env.policies.context.labelled_positions", lambda labels, count, seed: labelled)
    poisoned(env, "train", keep=[])
    poisoned(env, "reward", keep=labelled)
    assert torch.equal(fitted(POLICIES[name], env), honest.rule.teacher_weights)
    poisoned(env, "reward", keep=labelled[32:])
    assert not torch.equal(fitted(POLICIES[name], env), honest.rule.teacher_weights)


def test_the_reward_labels_are_those_of_the_run():
    env, _ = env_and_policy("uniform", reward_labels=64, seed=3)
    context = PolicyContext(env, "a policy", "reward labels")
    examples, rows = context.reward_examples(), env.selection.distillation.reward_split.positions[0]
    assert np.array_equal(context.reward_positions, rows)
    assert torch.equal(examples.labels, env.selection.data.labels["reward"][rows])
    assert np.array_equal(examples.teacher_logits.numpy(), env.selection.data.bank.gather("reward", rows).logits)


def test_lr_ensemble_reads_the_training_labels_alone():
    env, honest = env_and_policy("lr_ensemble")
    poisoned(env, "reward", keep=[])
    assert torch.equal(fitted(LREnsemble, env), honest.rule.teacher_weights)
    poisoned(env, "train", keep=np.arange(600))
    assert not torch.equal(fitted(LREnsemble, env), honest.rule.teacher_weights)


def test_lr_ensemble_draws_a_part_of_a_huge_train_split_by_its_seed(monkeypatch):
    env, whole = env_and_policy("lr_ensemble")
    assert torch.equal(fitted(LREnsemble, env, seed=1), whole.rule.teacher_weights), "all of a small one, whatever the seed"
    monkeypatch.setattr("baselines.lr_ensemble.MAX_ROWS", 200)
    seen = []
    monkeypatch.setattr("baselines.lr_ensemble.weights", lambda logits, labels, ridge: seen.append((logits, labels)) or labels)
    for seed in (0, 0, 1):
        fitted(LREnsemble, env, seed)
    assert [tuple(logits.shape) for logits, _ in seen] == [(200, 4, 10)] * 3
    assert torch.equal(seen[0][0], seen[1][0])
    assert not torch.equal(seen[0][0], seen[2][0])
    logits = env.selection.data.bank.gather("train", slice(None)).logits
    rows = [int(np.flatnonzero((logits == example.numpy()).all((1, 2)))[0]) for example in seen[0][0][:5]]
    assert env.selection.data.labels["train"][rows].tolist() == seen[0][1][:5].tolist(), "labels of the same rows"


def test_lr_ensemble_fits_on_every_labelled_example_the_first_one_too(monkeypatch):
    fits = []
    monkeypatch.setattr("baselines.lr_ensemble.weights", lambda logits, labels, ridge: fits.append((logits, labels)) or torch.ones(4) / 4)
    env, _ = env_and_policy("lr_ensemble")
    (logits, labels), data = fits[0], env.selection.data
    assert torch.equal(labels, data.labels["train"])
    assert np.array_equal(logits.numpy(), data.bank.gather("train", slice(None)).logits), "all rows, in order, row 0 first"


def test_row_0_has_a_part_in_the_weights_of_lr_ensemble():
    env, honest = env_and_policy("lr_ensemble")
    poisoned(env, "train", keep=np.arange(1, len(env.selection.data.labels["train"])))
    assert not torch.equal(fitted(LREnsemble, env), honest.rule.teacher_weights)


def random_teachers(task):
    student = "tiny-bert(width=8,layers=1,dropout=0)"
    return Pool("random", tuple(NetworkTeacher(f"teacher{k}", build(student, task, k), task, logit_scale=4.0) for k in range(3)))


def write_texts(folder, name, count, label=True):
    lines = [f"{name} {i} {('dull', 'fine')[i % 2]}" + (f"\t{('dull', 'fine')[i % 2]}" if label else "") for i in range(count)]
    (folder / f"{name}.tsv").write_text("\n".join(["sentence\tlabel" if label else "sentence", *lines]) + "\n")


def test_lr_ensemble_fits_on_the_labelled_part_of_an_unlabelled_task(tmp_path, monkeypatch):
    for name in ("train", "reward", "validation", "test"):
        write_texts(tmp_path, name, 40)
    write_texts(tmp_path, "unlabelled", 100, label=False)
    fits, weights = [], lr_ensemble.weights
    monkeypatch.setattr("baselines.lr_ensemble.weights", lambda *parts: (fits.append(parts), weights(*parts))[1])
    name, settings = f"folder:{tmp_path}(unlabelled=true)", {"updates": 3, "student": "tiny-bert(width=8,layers=1)"}
    trial = Trial(name, "lr_ensemble", 0, f"{__name__}:random_teachers", settings=settings)
    record = run_trial(trial, tmp_path / "out")
    task = trial.resolved.task
    known = np.flatnonzero(task.train.labels >= 0)
    assert (len(known), len(task.train)) == (40, 140)
    logits, labels, _ = fits[0]
    assert labels.tolist() == task.train.labels[known].tolist()
    assert logits.shape == (40, 3, 2)
    assert not record["diverged"]
    assert record["selection_rate"] == pytest.approx(weights(logits, labels).tolist(), abs=1e-6)


# the policies


@pytest.mark.parametrize("name", POLICIES)
def test_the_weights_are_the_same_for_every_instance(name):
    env, policy = env_and_policy(name)
    weights = acted_weights(env, policy)
    assert weights == pytest.approx(np.tile(policy.rule.teacher_weights.numpy(), (32, 1)), abs=1e-6)
    assert weights[0].std() > 0.01, "not uniform"


@pytest.mark.parametrize("name", ["lr_ensemble", "lr_dev"])
@pytest.mark.parametrize("ridge", ["0", "-1", "small", "true"])
def test_a_ridge_that_is_none_is_refused(name, ridge):
    with pytest.raises(InputError, match=rf"{name}\(ridge=.*\): expected a number above 0"):
        env_and_policy(f"{name}(ridge={ridge})")


@pytest.mark.parametrize("name", POLICIES)
def test_it_keeps_to_the_protocol_and_teaches_a_text_student(name, tmp_path):
    check_policy(POLICIES[name])
    record = run_trial(Trial(SMALL_TEXT, name, 0, settings={"updates": 2}), tmp_path)
    assert record["access"] == ("train labels" if name == "lr_ensemble" else "reward labels")
    assert sum(record["selection_rate"]) > 0.99
