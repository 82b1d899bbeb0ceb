"""Built-in pools: what their recipes are for a task, and that their teachers are what the pool promises."""

import dataclasses

import numpy as np
import pytest
import torch

from kd_env import tasks
from kd_env.errors import InputError
from kd_env.tasks import Split, Task
from kd_env.tasks.wordpiece import WordPiece
from kd_env.teachers import POOLS, load_pool, pool_recipes
from kd_env.teachers.train_recipe import TeacherRecipe

pytestmark = pytest.mark.long


def accuracy(teacher, split, rows=slice(None)):
    return float((teacher(split.inputs[rows]).logits.argmax(1).numpy() == split.labels[rows]).mean())


def text_task(count, num_groups=0):
    rng = np.random.default_rng(0)
    texts = np.array([f"{'good' if i % 2 else 'bad'} {rng.integers(1000)}" for i in range(count)], dtype=object)
    split = Split(texts, np.arange(count) % 2, np.arange(count) // 2 % num_groups if num_groups else None)
    names = tuple(f"a group/{g}" for g in range(num_groups))
    return Task(
        "folder:/some where",
        "text",
        split,
        split,
        split,
        split,
        ("0", "1"),
        tasks.load("digits").defaults,
        names,
        tokenizer=WordPiece(texts),
    )


@pytest.mark.parametrize(("count", "epochs", "fraction"), [(200, 20, 1.0), (2000, 10, 1.0), (20_000, 1, 1.0), (80_000, 1, 0.25)])
def test_a_pool_for_any_task_takes_about_as_long_on_each(count, epochs, fraction):
    recipes = POOLS["text/sizes"].fitted(text_task(count)).teachers
    assert {(recipe.epochs, recipe.fraction) for recipe in recipes} == {(epochs, fraction)}


def test_a_group_of_labelled_examples_has_an_expert_and_groups_of_unlabelled_ones_do_not_matter():
    task = text_task(120, 2)
    groups = np.where(np.arange(120) < 20, -1, task.train.groups)
    labels = np.where(np.arange(120) < 20, -1, task.train.labels)
    partly = dataclasses.replace(task, train=Split(task.train.inputs, labels, groups), unlabelled=True)
    recipe = POOLS["text/experts"].fitted(partly)
    assert [teacher.name for teacher in recipe.teachers] == ["a group/0", "a group/1"]
    assert recipe.best_for_group is None, "nobody knows how good they are"


def test_experts_of_generated_text_follow_its_domains(tmp_path, monkeypatch):
    monkeypatch.setenv("KD_ENV_CACHE", str(tmp_path))
    recipe = dataclasses.replace(POOLS["domains/experts"].expert, network="tiny-bert(width=8,layers=1,dropout=0)", epochs=1)
    monkeypatch.setitem(POOLS, "domains/experts", pool_recipes.PoolRecipe("small", expert=recipe))
    task = tasks.load("domains(num_domains=3,train=48,reward=8,validation=8,test=8)")
    pool = load_pool("domains/experts", task)
    assert pool.names == ("domain0", "domain1", "domain2")
    assert pool.best_for_group == (0, 1, 2)


def test_experts_of_one_s_own_groups_are_not_taken_for_the_best(tmp_path, monkeypatch):
    monkeypatch.setenv("KD_ENV_CACHE", str(tmp_path))
    recipe = dataclasses.replace(POOLS["text/experts"], expert=TeacherRecipe("expert", "tiny-bert(width=8,layers=1)"), examples=100)
    monkeypatch.setitem(POOLS, "text/experts", recipe)
    pool = load_pool("text/experts", text_task(120, 2))
    assert pool.names == ("a group/0", "a group/1")
    assert pool.best_for_group is None
    files = {path.name for path in (tmp_path / "teachers").glob("*.safetensors")}
    assert len(files) == 2
    assert all(name.startswith("folder-some-where-a-group-") for name in files)


def test_each_expert_is_the_best_teacher_of_its_domain(digits):
    pool = load_pool("digits/experts", digits)
    assert pool.names == digits.group_names
    assert pool.best_for_group == (0, 1, 2, 3)
    split = digits.validation
    table = np.array([[accuracy(teacher, split, split.groups == group) for teacher in pool.teachers] for group in range(4)])
    assert (table.argmax(1) == np.array(pool.best_for_group)).all()
    away = table[~np.eye(4, dtype=bool)]
    assert table.diagonal().min() > 0.9
    assert away.max() < 0.6, "an expert knows its domain alone"


def test_a_mixed_pool_is_good_weak_noisy_and_overconfident(digits):
    pool = load_pool("digits/mixed", digits)
    right = dict(zip(pool.names, (accuracy(teacher, digits.validation) for teacher in pool.teachers), strict=True))
    assert max(right, key=right.get) == "good"
    assert right["weak"] < right["good"] - 0.1
    logits = {teacher.name: teacher(digits.validation.inputs).logits for teacher in pool.teachers}
    sure = {name: float(values.softmax(1).amax(1).mean()) for name, values in logits.items()}
    assert sure["overconfident"] > 0.9
    assert sure["overconfident"] - right["overconfident"] > 0.1 + max(sure[name] - right[name] for name in sure if name != "overconfident")
    assert sure["label-noise"] < sure["good"]


def answers(name, digits, split):
    """Return logits ``[N, K, C]`` of a pool, and which answers are right ``[N, K]``."""
    pool, split = load_pool(name, digits), getattr(digits, split)
    logits = np.stack([teacher(split.inputs).logits.numpy() for teacher in pool.teachers], 1)
    return pool, logits, logits.argmax(2) == split.labels[:, None]


def certainty(logits):
    """Return the largest probability of each answer ``[N, K]``."""
    return torch.from_numpy(logits).softmax(2).amax(2).numpy()


def test_teachers_with_complementary_errors_know_their_classes_in_all_domains_and_no_other(digits):
    pool, logits, right = answers("digits/complementary", digits, "validation")
    labels, groups = digits.validation.labels, digits.validation.groups
    best = np.array(pool.best_for_class)
    table = np.array([right[labels == label].mean(0) for label in range(10)])  # [C, K]
    assert table[np.arange(10), best].min() > 0.9
    assert np.where(np.eye(4, dtype=bool)[best], 0.0, table).max() < 0.05, "a teacher never names a class that it does not know"
    assert right.mean(0).max() < 0.35, "no teacher is best overall"
    by_group = np.array([right[groups == group].mean(0) for group in range(4)])
    assert by_group.std(0).max() < 0.05, "the domain says nothing"
    surest = right[np.arange(len(right)), certainty(logits).argmax(1)].mean()
    assert surest < 0.7, "nor does confidence say enough"


def test_among_overconfident_teachers_confidence_falls_with_accuracy(digits):
    pool, logits, right = answers("digits/overconfident", digits, "validation")
    assert set(pool.best_for_group) == {0}
    accuracies, sure = right.mean(0), certainty(logits)
    assert (np.diff(accuracies) < -0.05).all()
    assert (np.diff(sure.mean(0)) > 0.03).all()
    assert sure.mean(0)[0] < accuracies[0] - 0.3, "the accurate teacher is underconfident"
    assert sure.mean(0)[-1] > accuracies[-1] + 0.3
    surest = right[np.arange(len(right)), sure.argmax(1)].mean()
    mixture = torch.from_numpy(logits).softmax(2).mean(1).argmax(1).numpy() == digits.validation.labels
    assert surest < mixture.mean() - 0.1
    assert surest < accuracies[0] - 0.25


def test_copies_outvote_the_good_teacher_where_they_are_wrong_and_the_adversary_is_always_wrong(digits):
    pool, logits, right = answers("digits/duplicated", digits, "validation")
    assert pool.names[pool.best_for_group[0]] == "good"
    accuracies = dict(zip(pool.names, right.mean(0), strict=True))
    assert accuracies["good"] > 0.9
    assert accuracies["adversary"] < 0.05
    assert certainty(logits)[:, 4].mean() > 0.9, "and sure of it"
    copies, guesses = right[:, 1:4], logits.argmax(2)[:, 1:4]
    assert copies.mean() == pytest.approx(0.57, abs=0.05)
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert np.corrcoef(copies[:, a], copies[:, b])[0, 1] > 0.8
        both_wrong = ~copies[:, a] & ~copies[:, b]
        assert (guesses[both_wrong, a] == guesses[both_wrong, b]).mean() > 0.9, "they make the same errors"
    vote = np.array([np.bincount(row, minlength=10).argmax() for row in logits.argmax(2)])
    assert (vote == digits.validation.labels).mean() < accuracies["good"] - 0.3


def test_homogeneous_teachers_are_equally_good_everywhere(digits):
    pool, _, right = answers("digits/homogeneous", digits, "validation")
    assert pool.best_for_group is None
    assert np.ptp(right.mean(0)) < 0.01
    by_group = np.array([right[digits.validation.groups == group].mean(0) for group in range(4)])
    assert by_group.min() > 0.93
    assert np.ptp(by_group, axis=1).max() < 0.03


def test_corrupted_answers_are_wrong_as_often_as_stated_and_as_certain_as_right_ones(digits):
    pool, logits, right = answers("digits/corrupted", digits, "validation")
    assert set(pool.best_for_group) == {0}
    accuracies, sure = right.mean(0), certainty(logits)
    assert accuracies == pytest.approx(accuracies[0] * np.array([1.0, 0.7, 0.4, 0.1]), abs=0.025)
    assert np.ptp(sure.mean(0)) < 0.01
    assert right[np.arange(len(right)), sure.argmax(1)].mean() < 0.55, "confidence misleads"


@pytest.mark.parametrize("split", ["train", "reward", "validation"])
def test_random_errors_are_independent_of_the_class_and_systematic_ones_follow_from_it(digits, split):
    pool, logits, right = answers("digits/systematic", digits, split)
    labels, guesses = getattr(digits, split).labels, logits.argmax(2)
    assert pool.names == ("systematic", "random")
    assert set(pool.best_for_group) == {1}
    systematic, random = right.mean(0)
    assert systematic == pytest.approx(0.49, abs=0.02)
    assert random < systematic - 0.02, "the labels say that it is worse"
    by_class = np.array([right[labels == label].mean(0) for label in range(10)])  # [C, K]
    sorted_accuracy = np.sort(by_class[:, 0])
    assert sorted_accuracy[:5].max() < 0.05
    assert sorted_accuracy[5:].min() > 0.9
    size = len(labels) / 10
    assert np.abs(by_class[:, 1] - random).max() < 4 * np.sqrt(random * (1 - random) / size)
    wrong = ~right[:, 1]
    shift = np.bincount((guesses[wrong, 1] - labels[wrong]) % 10, minlength=10)[1:] / wrong.sum()
    assert np.abs(shift - 1 / 9).max() < 0.05, "each other class is as likely"
    says = np.array([right[guesses[:, 0] == answer].mean(0) for answer in np.unique(guesses[:, 0])])
    assert (says[:, 0] > says[:, 1] - 0.08).all(), "whatever the systematic teacher says, it is right about as often or more often"


def test_drifting_experts_are_those_of_the_experts_pool_until_they_change(digits):
    pool, experts = load_pool("digits/drift", digits), load_pool("digits/experts", digits)
    assert [teacher.fingerprint() for teacher in pool.teachers] == [teacher.fingerprint() for teacher in experts.teachers]
    assert pool.best_for_group == experts.best_for_group
    assert (pool.drift.at, pool.drift.roles) == (0.5, (1, 2, 3, 0))
    assert experts.drift is None
    assert pool.select(["upright", "inverted", "mirrored", "transposed"]).drift == pool.drift
    turned = pool.select(["inverted", "mirrored", "transposed", "upright"])
    assert turned.drift.roles == (1, 2, 3, 0)
    with pytest.raises(InputError, match="these teachers take the place of mirrored during a run; name those too"):
        load_pool("digits/drift/upright,digits/drift/inverted", digits)
    with pytest.raises(InputError, match="its teachers change during a run, together; name this pool alone"):
        load_pool("digits/drift/upright,digits/mixed/good", digits)


@pytest.mark.slow
def test_in_the_systematic_pool_the_less_accurate_teacher_makes_the_better_student(digits, tmp_path):
    from kd_env.benchmark.run_trial import run_trial
    from kd_env.benchmark.trial import Trial

    settings = {"updates": 600}
    trials = {
        k: [Trial("digits", f"single:{k}", seed, "digits/systematic", settings=settings, test=False) for seed in range(3)] for k in (0, 1)
    }
    scores = {k: [run_trial(trial, tmp_path)["validation"] for trial in of_teacher] for k, of_teacher in trials.items()}
    assert min(scores[1]) > max(scores[0]) + 0.1


@pytest.mark.slow
def test_in_the_capacity_pool_the_most_accurate_teacher_makes_the_worse_student(digits, tmp_path):
    from kd_env.benchmark.run_trial import run_trial
    from kd_env.benchmark.trial import Trial

    pool = load_pool("digits/capacity", digits)
    right = {teacher.name: accuracy(teacher, digits.validation) for teacher in pool.teachers}
    scores = {
        name: [run_trial(Trial("digits", f"single:{name}", seed, "digits/capacity"), tmp_path)["test"] for seed in range(3)]
        for name in pool.names
    }
    means = {name: float(np.mean(values)) for name, values in scores.items()}
    print(f"\nteachers on validation: {right}\nstudents on test: {means}")
    assert max(right, key=right.get) == "misleading"
    assert right["misleading"] > right["modest"]
    assert means["modest"] > means["misleading"] + 0.02
    assert max(means, key=means.get) == "modest"
