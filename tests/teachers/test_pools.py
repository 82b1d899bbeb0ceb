"""Pools by name: trained once, the same every time, and refused where they do not fit the task."""

import dataclasses

import numpy as np
import pytest
import torch

from kd_env import tasks
from kd_env.errors import InputError
from kd_env.teachers import POOLS, load_pool
from kd_env.teachers import pools as pools_module
from kd_env.teachers.pool_recipes import PoolRecipe
from kd_env.teachers.train_recipe import TeacherRecipe, train_network

SMALL = TeacherRecipe("small", "mlp(width=8)", fraction=0.1, epochs=2, seed=3)


def same(network, other):
    return all(torch.equal(a, b) for a, b in zip(network.state_dict().values(), other.state_dict().values(), strict=True))


def test_the_progress_of_training_is_reported_for_each_teacher(digits, tmp_path, monkeypatch):
    monkeypatch.setenv("KD_ENV_CACHE", str(tmp_path))
    monkeypatch.setitem(POOLS, "digits/small", PoolRecipe("small", (SMALL, dataclasses.replace(SMALL, name="other", seed=5))))
    pool_file = tmp_path / "pool.toml"
    pool_file.write_text('[[teachers]]\nname = "vit"\nmodel = "tiny-vit(width=16)"\nfraction = 0.02\nepochs = 1\n')
    reports = []
    load_pool(f"digits/small,{pool_file}", digits, lambda *report: reports.append(report))
    names = [name for name, *_ in reports]
    assert list(dict.fromkeys(names)) == ["teacher small", "teacher other", "vit"]
    for name in dict.fromkeys(names):
        _, done, total, _ = [report for report in reports if report[0] == name][-1]
        assert done == total > 0
    reports.clear()
    load_pool(f"digits/small,{pool_file}", digits, lambda *report: reports.append(report))
    assert reports == [], "they are cached"


def test_convolutional_teachers_are_cached_with_equal_answers(digits, tmp_path, monkeypatch):
    monkeypatch.setenv("KD_ENV_CACHE", str(tmp_path))
    recipe = TeacherRecipe("conv", "resnet8(width=4)", fraction=0.05, epochs=1)
    monkeypatch.setitem(POOLS, "digits/conv", PoolRecipe("conv", (recipe,)))
    first, again = (load_pool("digits/conv", digits).teachers[0].network for _ in range(2))
    assert list((tmp_path / "teachers").glob("*-conv-*.safetensors"))
    pixels = torch.rand(4, 1, 8, 8)
    with torch.no_grad():
        assert torch.equal(first(pixels).logits, again(pixels).logits)


def test_a_pool_is_trained_once_and_again_if_its_file_is_damaged(digits, tmp_path, monkeypatch):
    monkeypatch.setenv("KD_ENV_CACHE", str(tmp_path))
    monkeypatch.setitem(POOLS, "digits/small", PoolRecipe("small", (SMALL, dataclasses.replace(SMALL, name="other", seed=5))))
    trained = []
    monkeypatch.setattr(pools_module, "train_network", lambda recipe, *rest: trained.append(recipe.name) or train_network(recipe, *rest))
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
        monkeypatch.setitem(POOLS, "digits/small", PoolRecipe("small", (recipe,)))
        load_pool("digits/small", digits)
    fewer = dataclasses.replace(digits, train=digits.train.take(np.arange(2000)))
    load_pool("digits/small", fewer)
    assert len(list((tmp_path / "teachers").glob("*.safetensors"))) == 3


def test_no_teacher_of_a_pool_holds_test(digits):
    assert digits.test is not None
    assert [teacher.task.test for teacher in load_pool("digits/experts", digits).teachers] == [None] * 4


@pytest.mark.parametrize("text", ["digits/experts/upright", "digits/experts/inverted,digits/experts/upright", "digits/experts/mirrored"])
def test_some_teachers_of_a_pool_in_the_order_asked_for(digits, text):
    names = tuple(part.rpartition("/")[2] for part in text.split(","))
    pool = load_pool(text, digits)
    whole = load_pool("digits/experts", digits)
    assert pool.names == names
    assert pool.best_for_group is None, "a domain's best teacher is gone"
    assert [teacher.fingerprint() for teacher in pool.teachers] == [whole.teachers[whole.names.index(name)].fingerprint() for name in names]


def test_all_teachers_in_another_order_keep_the_best_of_each_group(digits):
    text = ",".join(f"digits/experts/{name}" for name in ("transposed", "upright", "mirrored", "inverted"))
    assert load_pool(text, digits).best_for_group == (1, 3, 2, 0)


def test_a_selection_with_the_best_teacher_of_all_groups_keeps_it(digits):
    assert load_pool("digits/mixed/weak,digits/mixed/good", digits).best_for_group == (1, 1, 1, 1)


def test_teachers_of_several_pools_are_one_pool(digits):
    pool = load_pool("digits/experts/mirrored, digits/mixed/good", digits)
    assert pool.names == ("mirrored", "good")
    assert pool.best_for_group is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("digits/expert", "unknown pool 'digits/expert'; did you mean 'digits/experts'"),
        ("", "unknown pool ''"),
        (",", "unknown pool ','"),
        ("digits/experts/upside", "unknown teacher of digits/experts 'upside'"),
        ("digits/experts/upright,digits/mixed/god", "unknown teacher of digits/mixed 'god'; did you mean 'good'"),
        ("digits/experts/upright,digits/mixd", "unknown pool 'digits/mixd'; did you mean 'digits/mixed'"),
        ("digits/experts/upright,digits/experts/upright", "teacher names must be unique, got upright, upright"),
        ("domains/experts", "pool 'domains/experts' is for another task than 'digits'; pools for it: digits/experts, digits/mixed"),
        ("no_such_module:pool", "pool 'no_such_module:pool' cannot be imported"),
        ("builtins:repr", "pool 'builtins:repr': returned str, expected a kd_env.teachers.Pool"),
        ("json:loads", "pool 'json:loads': TypeError: the JSON object must be str, bytes or bytearray, not Task"),
        ("math:pi", "pool 'math:pi': returned float, expected a kd_env.teachers.Pool"),
    ],
)
def test_what_cannot_be_a_pool_is_refused(digits, text, message):
    with pytest.raises(InputError) as refused:
        load_pool(text, digits)
    assert message in str(refused.value)


def test_a_pool_for_text_is_refused_by_name_before_anything_is_trained(tmp_path, monkeypatch):
    monkeypatch.setenv("KD_ENV_CACHE", str(tmp_path / "cache"))
    task = tasks.load("domains(train=48,reward=8,validation=8,test=8)")
    with pytest.raises(InputError, match="is for another task than 'domains"):
        load_pool("digits/experts", task)
    assert not (tmp_path / "cache").exists()


def test_a_pool_of_another_kind_or_of_groups_that_are_not_there_is_refused(digits):
    with pytest.raises(InputError, match=r"pool 'text/sizes' is for another task than 'digits'; pools for it: .*image/sizes"):
        load_pool("text/sizes", digits)
    with pytest.raises(InputError, match=r"has one teacher for each group and task 'domains.*' has no groups; use text/sizes"):
        load_pool("text/experts", dataclasses.replace(tasks.load("domains(train=48,reward=8,validation=8,test=8)"), group_names=()))
