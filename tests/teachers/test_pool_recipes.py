"""Built-in pools: what their recipes are for a task, and that their teachers are what the pool promises."""

import dataclasses

import numpy as np
import pytest

from kd_env import tasks
from kd_env.tasks import Split, Task
from kd_env.tasks.wordpiece import WordPiece
from kd_env.teachers import POOLS, load_pool, pool_recipes
from kd_env.teachers.train_recipe import TeacherRecipe


@pytest.fixture(scope="module")
def digits():
    return tasks.load("digits")


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
