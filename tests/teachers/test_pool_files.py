"""Pools of your own: pool files, folders of checkpoints, and which teacher was trained on which group."""

import dataclasses
import json
import shutil

import gymnasium as gym
import pytest
import torch
from safetensors.torch import load_file

from kd_env.errors import InputError
from kd_env.policies import make_policy
from kd_env.teachers import load_pool, pool_files
from kd_env.teachers.finetune import finetune
from kd_env.teachers.finetune_config import FinetuneConfig
from kd_env.teachers.out_of_fold import finetune_folds

QUICK = FinetuneConfig("tiny-bert(width=16,layers=1)", epochs=2, seed=3)


def weights(folder):
    return load_file(folder / "model.safetensors")


def same(folder, other):
    ours, theirs = weights(folder), weights(other)
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("kind", ["json", "toml"])
def test_the_teachers_of_a_pool_file_are_trained_by_one_call_and_its_folder_is_a_pool(kind, own_task, tmp_path):
    tables = [
        {"name": "z", "model": QUICK.model, "epochs": 1, "groups": ["a"]},
        {"name": "a", "model": QUICK.model, "epochs": 1, "seed": 1},
    ]
    file = tmp_path / f"pool.{kind}"
    if kind == "json":
        file.write_text(json.dumps({"teachers": tables}), encoding="utf-8-sig")
    else:
        lines = ["[[teachers]]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in table.items()) for table in tables]
        file.write_text("".join(lines))
    out = pool_files.teach(file, own_task, tmp_path / "pool")
    pool = load_pool(str(out), own_task)
    assert pool.names == ("z", "a")
    assert same(out / "a", finetune(own_task, FinetuneConfig(QUICK.model, epochs=1, seed=1), tmp_path / "alone"))
    from_file = load_pool(str(file), own_task)
    assert [teacher.fingerprint() for teacher in from_file.teachers] == [teacher.fingerprint() for teacher in pool.teachers]
    assert load_pool(f"{out}/a,{tmp_path}/alone", own_task).names == ("a", "alone")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", r"pool\.json: Expecting property name .*; fix it there"),
        ("{}", r'pool\.json: no list "teachers" in it; give it one table per teacher, with name and model'),
        ('{"teachers": [{"name": "a", "model": "m"}], "epochs": 7}', "unknown key 'epochs'; it holds \"teachers\" alone"),
        ('{"teachers": [{"name": "a", "model": "m", "name": "b"}]}', "'name' is there twice in one table; fix it there"),
        ('{"teachers": [{"name": "pool.json", "model": "m"}]}', "name 'pool.json' cannot be the name of a folder"),
        ('{"teachers": [3]}', "teacher 1: a int, expected a table with name and model"),
        ('{"teachers": [{"name": "a"}]}', "teacher 1: model=None, expected a text; every teacher has a name and a model"),
        (
            '{"teachers": [{"name": "a/b", "model": "m"}]}',
            "teacher 1: name 'a/b' cannot be the name of a folder; use letters,",
        ),
        ('{"teachers": [{"name": "a", "model": "m", "epoch": 1}]}', "teacher 1: unknown key 'epoch'; did you mean 'epochs'?"),
        ('{"teachers": [{"name": "a", "model": "m", "lr": true}]}', "teacher 1: lr=True, expected float"),
        (
            '{"teachers": [{"name": "a", "model": "m"}, {"name": "a", "model": "m"}]}',
            "teacher 2: another teacher is called 'a' too;",
        ),
    ],
)
def test_a_pool_file_that_cannot_be_used_is_named(content, message, tmp_path):
    file = tmp_path / "pool.json"
    file.write_text(content)
    with pytest.raises(InputError, match=message):
        pool_files.read(file)


def test_a_folder_is_one_pool(own_task, tmp_path):
    file, out = tmp_path / "pool.json", tmp_path / "pool"
    file.write_text(json.dumps({"teachers": [{"name": "a", "model": QUICK.model, "epochs": 1}]}))
    finetune(own_task, dataclasses.replace(QUICK, epochs=1), out / "before")
    with pytest.raises(InputError, match=r"pool holds before, which .*pool\.json does not name; name another --out"):
        pool_files.teach(file, own_task, out)
    assert {path.name for path in out.iterdir()} == {"before"}
    shutil.rmtree(out)
    pool_files.teach(file, own_task, out)
    assert pool_files.teach(file, own_task, out) == out, "finished teachers are left as they are"
    finetune(own_task, dataclasses.replace(QUICK, epochs=1), out / "after")
    with pytest.raises(InputError, match=r"pool holds after, which its pool\.json does not name; delete the list to use all"):
        load_pool(str(out), own_task)
    (out / "pool.json").unlink()
    assert load_pool(str(out), own_task).names == ("a", "after")


def pool_of_groups(tmp_path, own_task, **groups):
    """A pool with one teacher for each name, trained on its groups, as ``load_pool`` opens it."""
    tables = [{"name": name, "model": QUICK.model, "epochs": 1, **config} for name, config in groups.items()]
    file = tmp_path / "pool.json"
    file.write_text(json.dumps({"teachers": tables}))
    return load_pool(str(file), own_task)


A, B = {"groups": ["a"]}, {"groups": ["b"]}


def test_the_teacher_of_each_group_is_known_and_the_oracle_chooses_it(own_task, tmp_path):
    pool = pool_of_groups(tmp_path, own_task, second=B, first=A)
    assert own_task.group_names == ("a", "b")
    assert pool.best_for_group == (1, 0)
    assert pool.select(["first", "second"]).best_for_group == (0, 1)
    options = {"task": own_task, "student": "tiny-bert(width=16,layers=1,dropout=0)", "updates": 2, "action": "one"}
    pools = [{"teachers": pool}, {"teachers": str(tmp_path / "pool.json")}]
    for selection in pools:
        env = gym.make_vec(
            "kd_env/TeacherSelection-v0", num_envs=32, vectorization_mode="vector_entry_point", **options, **selection
        ).unwrapped
        observation, _ = env.reset(seed=0)
        chosen = make_policy("oracle", env).act(observation)
        groups = own_task.train.groups[env.selection.distillation.observe().example_ids]
        assert chosen.tolist() == [(1, 0)[group] for group in groups]
        assert len(set(chosen.tolist())) == 2


@pytest.mark.parametrize(
    "configs",
    [
        {"one": A, "two": {}},
        {"one": A},
        {"one": A, "two": B, "three": B},
        {"one": {"groups": ["a", "b"]}, "two": B},
        {"one": A, "two": {**B, "label_noise": 0.2}},
    ],
    ids=["a teacher of all groups", "a group missing", "taught twice", "overlapping", "noisy labels"],
)
def test_the_teacher_of_a_group_is_not_known_unless_each_group_was_taught_to_one(configs, own_task, tmp_path):
    assert pool_of_groups(tmp_path, own_task, **configs).best_for_group is None


def test_a_teacher_that_names_all_groups_is_the_teacher_of_each(own_task, tmp_path):
    assert pool_of_groups(tmp_path, own_task, every={"groups": ["b", "a"]}).best_for_group == (0, 0)


def test_groups_of_out_of_fold_teachers_are_known_and_those_of_other_checkpoints_are_not(own_task, make_checkpoint, tmp_path):
    config = dataclasses.replace(QUICK, epochs=1)
    finetune(own_task, dataclasses.replace(config, groups=("a",)), tmp_path / "pool" / "a")
    finetune_folds(own_task, dataclasses.replace(config, groups=("b",)), 2, tmp_path / "pool" / "b")
    assert load_pool(str(tmp_path / "pool"), own_task).best_for_group == (0, 1)
    assert load_pool(f"{tmp_path}/pool/b, {tmp_path}/pool/a", own_task).best_for_group == (1, 0)
    (tmp_path / "pool" / "b" / "fold-1" / "teaching.json").write_text("[]")
    assert load_pool(str(tmp_path / "pool"), own_task).best_for_group is None
    make_checkpoint(tmp_path / "other")
    assert load_pool(f"{tmp_path}/pool/a,{tmp_path}/other", own_task).best_for_group is None
