"""Named pools: made once, the same every time, and what they promise about their teachers holds."""

import dataclasses

import numpy as np
import pytest
import torch

from kd_env import tasks
from kd_env.errors import InputError
from kd_env.tasks import Split, Task
from kd_env.tasks.wordpiece import WordPiece
from kd_env.teachers import POOLS, NetworkTeacher, Pool, load_pool
from kd_env.teachers import pools as pools_module
from kd_env.teachers.train import TeacherRecipe, _rows, _targets, fit

SMALL = TeacherRecipe("small", "mlp(width=8)", fraction=0.1, epochs=2, seed=3)


@pytest.fixture(scope="module")
def digits():
    return tasks.load("digits")


def accuracy(teacher, split, rows=slice(None)):
    return float((teacher(split.inputs[rows]).logits.argmax(1).numpy() == split.labels[rows]).mean())


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


def test_a_recipe_is_deterministic_in_its_seed_and_leaves_the_global_generator_alone(digits):
    torch.manual_seed(0)
    state = torch.get_rng_state()
    one = fit(SMALL, digits)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(99)
    assert same(one, fit(SMALL, digits))
    assert not same(one, fit(dataclasses.replace(SMALL, seed=4), digits))


def test_dropout_in_a_teacher_draws_from_the_recipe_s_seed(digits):
    recipe = dataclasses.replace(SMALL, network="mlp(width=8,dropout=0.5)")
    one = fit(recipe, digits)
    torch.rand(7)
    assert same(one, fit(recipe, digits))


def test_a_recipe_sees_its_groups_and_its_fraction_alone(digits):
    rng = np.random.default_rng
    rows = _rows(TeacherRecipe("t", "mlp", groups=("mirrored", "upright")), digits, rng(0))
    assert set(digits.train.groups[rows]) == {0, 2}
    assert len(rows) == len(digits.train) // 2
    part = _rows(TeacherRecipe("t", "mlp", groups=("inverted",), fraction=0.25), digits, rng(0))
    assert len(part) == len(digits.train) // 16
    assert set(digits.train.groups[part]) == {1}


def test_targets_are_what_the_recipe_says(digits):
    labels = np.array([0, 4, 9])
    soft = _targets(TeacherRecipe("t", "mlp", next_class=0.2), digits, labels, np.random.default_rng(0))
    assert soft.sum(1).tolist() == pytest.approx([1, 1, 1])
    assert [row.nonzero().flatten().tolist() for row in soft] == [[0, 1], [4, 5], [0, 9]]
    assert [float(soft[i, label]) for i, label in enumerate(labels)] == pytest.approx([0.8] * 3)
    many = np.zeros(5000, dtype=np.int64)
    noisy = _targets(TeacherRecipe("t", "mlp", label_noise=0.4), digits, many, np.random.default_rng(0))
    assert float(noisy[:, 0].mean()) == pytest.approx(1 - 0.4 * 0.9, abs=0.02), "a random label is right one time in ten"


def test_a_pool_is_trained_once_and_again_where_the_file_is_damaged(digits, tmp_path, monkeypatch):
    monkeypatch.setenv("KD_ENV_CACHE", str(tmp_path))
    monkeypatch.setitem(POOLS, "digits/small", pools_module.PoolRecipe("small", (SMALL, dataclasses.replace(SMALL, name="other", seed=5))))
    trained = []
    monkeypatch.setattr(pools_module, "fit", lambda recipe, task: trained.append(recipe.name) or fit(recipe, task))
    first = load_pool("digits/small", digits)
    assert trained == ["small", "other"]
    assert same(load_pool("digits/small", digits).teachers[0].network, first.teachers[0].network)
    assert len(trained) == 2
    (file,) = (tmp_path / "teachers").glob("*-small-*.safetensors")
    whole = file.read_bytes()
    for damaged in (whole[:-20], b"", b"not safetensors at all", b"\xff" * 200):
        file.write_bytes(damaged)
        again = load_pool("digits/small", digits)
        assert same(again.teachers[0].network, first.teachers[0].network)
        assert [teacher.fingerprint() for teacher in again.teachers] == [teacher.fingerprint() for teacher in first.teachers]
        assert file.read_bytes() == whole
    assert trained == ["small", "other"] + ["small"] * 4
    assert not list(tmp_path.rglob("*.partial"))


def test_another_recipe_or_other_data_is_another_file(digits, tmp_path, monkeypatch):
    monkeypatch.setenv("KD_ENV_CACHE", str(tmp_path))
    for recipe in (SMALL, dataclasses.replace(SMALL, epochs=1)):
        monkeypatch.setitem(POOLS, "digits/small", pools_module.PoolRecipe("small", (recipe,)))
        load_pool("digits/small", digits)
    fewer = dataclasses.replace(digits, train=digits.train.take(np.arange(2000)))
    load_pool("digits/small", fewer)
    assert len(list((tmp_path / "teachers").glob("*.safetensors"))) == 3


def test_no_teacher_of_a_pool_holds_test(digits):
    for teacher in load_pool("digits/experts", digits).teachers:
        assert teacher.task.test is None


def test_each_expert_is_best_at_home(digits):
    pool = load_pool("digits/experts", digits)
    assert pool.names == digits.group_names
    assert pool.best_for_group == (0, 1, 2, 3)
    split = digits.validation
    table = np.array([[accuracy(teacher, split, split.groups == group) for teacher in pool.teachers] for group in range(4)])
    assert (table.argmax(1) == np.array(pool.best_for_group)).all()
    away = table[~np.eye(4, dtype=bool)]
    assert table.diagonal().min() > 0.9
    assert away.max() < 0.6, "an expert knows its domain alone"


def test_experts_of_generated_text_follow_its_domains(tmp_path, monkeypatch):
    monkeypatch.setenv("KD_ENV_CACHE", str(tmp_path))
    recipe = dataclasses.replace(POOLS["domains/experts"].expert, network="tiny-bert(width=8,layers=1,dropout=0)", epochs=1)
    monkeypatch.setitem(POOLS, "domains/experts", pools_module.PoolRecipe("small", expert=recipe))
    task = tasks.load("domains(num_domains=3,train=48,reward=8,validation=8,test=8)")
    pool = load_pool("domains/experts", task)
    assert pool.names == ("domain0", "domain1", "domain2")
    assert pool.best_for_group == (0, 1, 2)


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


@pytest.mark.parametrize("text", ["digits/experts/upright", "digits/experts/inverted,digits/experts/upright", "digits/experts/mirrored"])
def test_some_teachers_of_a_pool_in_the_order_asked_for(digits, text):
    names = tuple(part.rpartition("/")[2] for part in text.split(","))
    pool = load_pool(text, digits)
    whole = load_pool("digits/experts", digits)
    assert pool.names == names
    assert pool.best_for_group is None, "a domain's best teacher is gone"
    assert [one.fingerprint() for one in pool.teachers] == [whole.teachers[whole.names.index(name)].fingerprint() for name in names]


def test_all_teachers_in_another_order_keep_what_is_known_about_the_best(digits):
    text = ",".join(f"digits/experts/{name}" for name in ("transposed", "upright", "mirrored", "inverted"))
    assert load_pool(text, digits).best_for_group == (1, 3, 2, 0)


def test_a_pool_of_the_one_best_teacher_keeps_knowing_it(digits):
    assert load_pool("digits/mixed/weak,digits/mixed/good", digits).best_for_group == (1, 1, 1, 1)


def test_teachers_of_several_pools_are_one_pool(digits):
    pool = load_pool("digits/experts/mirrored, digits/mixed/good", digits)
    assert pool.names == ("mirrored", "good")
    assert pool.best_for_group is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("digits/expert", "unknown pool 'digits/expert'; did you mean 'digits/experts'"),
        ("", "unknown pool ''"),
        (",", "unknown pool ','"),
        ("digits/experts/upside", "unknown teacher of digits/experts 'upside'"),
        ("digits/experts/upright,digits/mixed/god", "unknown teacher of digits/mixed 'god'; did you mean 'good'"),
        ("digits/experts/upright,digits/mixd", "unknown pool 'digits/mixd'; did you mean 'digits/mixed'"),
        ("digits/experts/upright,digits/experts/upright", "teacher names must be unique, got upright, upright"),
        ("domains/experts", "pool 'domains/experts' was made for another task than 'digits'; pools for it: digits/experts, digits/mixed"),
        ("no_such_module:pool", "pool 'no_such_module:pool' cannot be imported"),
        ("builtins:repr", "pool 'builtins:repr': returned str, expected a kd_env.teachers.Pool"),
        ("json:loads", "pool 'json:loads': TypeError: the JSON object must be str, bytes or bytearray, not Task"),
        ("math:pi", "pool 'math:pi': returned float, expected a kd_env.teachers.Pool"),
    ],
)
def test_what_cannot_be_a_pool_is_refused(digits, text, said):
    with pytest.raises(InputError) as refused:
        load_pool(text, digits)
    assert said in str(refused.value)


def test_a_pool_for_text_is_refused_by_name_before_anything_is_trained(tmp_path, monkeypatch):
    monkeypatch.setenv("KD_ENV_CACHE", str(tmp_path / "cache"))
    task = tasks.load("domains(train=48,reward=8,validation=8,test=8)")
    with pytest.raises(InputError, match="was made for another task than 'domains"):
        load_pool("digits/experts", task)
    assert not (tmp_path / "cache").exists()


def test_names_are_unique_and_there_is_at_least_one(digits):
    teacher = load_pool("digits/experts", digits).teachers[0]
    with pytest.raises(InputError, match="has no teachers"):
        Pool("none", ())
    with pytest.raises(InputError, match="must be unique, got upright, upright"):
        Pool("twice", (teacher, teacher))


def test_a_fingerprint_follows_weights_scale_and_name(digits):
    network = fit(SMALL, digits)
    teacher = NetworkTeacher("t", network, digits)
    same_again = NetworkTeacher("t", fit(SMALL, digits), digits)
    assert teacher.fingerprint() == same_again.fingerprint()
    assert teacher.fingerprint() != NetworkTeacher("u", network, digits).fingerprint()
    assert teacher.fingerprint() != NetworkTeacher("t", network, digits, logit_scale=2.0).fingerprint()
    with torch.no_grad():
        same_again.network.classifier.bias[0] += 1e-6
    assert teacher.fingerprint() != same_again.fingerprint()


def test_logit_scale_multiplies_the_logits_alone(digits):
    network = fit(SMALL, digits)
    plain, loud = (NetworkTeacher("t", network, digits, scale)(digits.reward.inputs[:8]) for scale in (1.0, 8.0))
    assert torch.allclose(8.0 * plain.logits, loud.logits)
    assert torch.equal(plain.features, loud.features)
    assert plain.logits.shape == (8, 10)
    assert not plain.logits.requires_grad


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
def test_a_pool_for_any_task_of_a_kind_costs_about_the_same_for_all(count, epochs, fraction):
    for recipe in POOLS["text/sizes"].fitted(text_task(count)).teachers:
        assert (recipe.epochs, recipe.fraction) == (epochs, fraction)


def test_experts_of_one_s_own_groups_are_not_said_to_be_the_best(tmp_path, monkeypatch):
    monkeypatch.setenv("KD_ENV_CACHE", str(tmp_path))
    recipe = dataclasses.replace(POOLS["text/experts"], expert=TeacherRecipe("expert", "tiny-bert(width=8,layers=1)"), examples=100)
    monkeypatch.setitem(POOLS, "text/experts", recipe)
    pool = load_pool("text/experts", text_task(120, 2))
    assert pool.names == ("a group/0", "a group/1")
    assert pool.best_for_group is None
    files = {path.name for path in (tmp_path / "teachers").glob("*.safetensors")}
    assert len(files) == 2
    assert all(name.startswith("folder-some-where-a-group-") for name in files)


def test_a_pool_of_another_kind_or_of_groups_that_are_not_there_is_refused(digits):
    with pytest.raises(InputError, match=r"pool 'text/sizes' was made for another task than 'digits'; pools for it: .*image/sizes"):
        load_pool("text/sizes", digits)
    with pytest.raises(InputError, match="has a teacher a group and task 'folder:/some where' has no groups; use text/sizes"):
        load_pool("text/experts", text_task(20))
