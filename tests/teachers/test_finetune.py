"""Teaching: what it leaves is a plain checkpoint, the same however often it was stopped, and made of train alone."""

import dataclasses
import json
import re
import shutil

import gymnasium as gym
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

from baselines.oracle import Oracle
from kd_env import tasks
from kd_env.cli import invoke
from kd_env.errors import InputError
from kd_env.teachers import finetune as finetune_module
from kd_env.teachers import load_pool, pool_files
from kd_env.teachers.checkpoint import CheckpointTeacher
from kd_env.teachers.finetune import finetune
from kd_env.teachers.finetune_config import FinetuneConfig, fold_of
from kd_env.teachers.folded import FoldedTeacher, finetune_folds

QUICK = FinetuneConfig("tiny-bert(width=16,layers=1)", epochs=2, seed=3)


def weights(folder):
    return load_file(folder / "model.safetensors")


def same(one, other):
    ours, theirs = weights(one), weights(other)
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def accuracy(teacher, split):
    return float((teacher(split.inputs).logits.argmax(1).numpy() == split.labels).mean())


@pytest.fixture(scope="module")
def taught(own_task, tmp_path_factory):
    config = FinetuneConfig("tiny-bert(width=32,layers=1,dropout=0)", epochs=12, lr=3e-3)
    return finetune(own_task, config, tmp_path_factory.mktemp("taught") / "teacher")


def test_it_learns_and_any_transformers_program_can_use_it(taught, own_task):
    teacher = CheckpointTeacher(str(taught), own_task)
    assert accuracy(teacher, own_task.test) > 0.9
    model, tokenizer = AutoModelForSequenceClassification.from_pretrained(taught), AutoTokenizer.from_pretrained(taught)
    assert model.config.id2label == {0: "neg", 1: "pos"}
    assert tokenizer.model_max_length == 128
    text = own_task.test.inputs[0]
    said = pipeline("text-classification", model=str(taught), device="cpu")(text)[0]
    expected = teacher(own_task.test.inputs[:1]).logits.softmax(1)[0]
    assert said["label"] == own_task.class_names[int(expected.argmax())]
    assert said["score"] == pytest.approx(float(expected.max()), abs=1e-5)
    assert {path.name for path in taught.parent.iterdir()} == {"teacher"}, "nothing is left beside it"


def test_a_checkpoint_is_taught_further_with_a_new_head(taught, own_task, tmp_path):
    further = finetune(own_task, FinetuneConfig(str(taught), epochs=1, max_length=20), tmp_path / "further")
    assert AutoTokenizer.from_pretrained(further).model_max_length == 20
    ours, theirs = weights(further), weights(taught)
    body = "bert.embeddings.word_embeddings.weight"
    assert float((ours[body] - theirs[body]).abs().max()) < 0.01, "it began there"
    assert float((ours["classifier.weight"] - theirs["classifier.weight"]).abs().max()) > 0.01


def test_another_checkpoint_of_that_name_is_another_lesson(own_task, make_checkpoint, tmp_path):
    config = FinetuneConfig(f"{make_checkpoint(tmp_path / 'model')}(layers=0;)", epochs=1)
    out = finetune(own_task, config, tmp_path / "out")
    assert finetune(own_task, config, out) == out
    make_checkpoint(tmp_path / "model", seed=1)
    with pytest.raises(InputError, match="holds a teacher made with other model files"):
        finetune(own_task, config, out)


def test_it_is_deterministic_in_its_seed(own_task, tmp_path):
    one = finetune(own_task, QUICK, tmp_path / "one")
    torch.rand(3)
    assert same(one, finetune(own_task, QUICK, tmp_path / "two"))
    assert not same(one, finetune(own_task, dataclasses.replace(QUICK, seed=4), tmp_path / "three"))


def test_stopped_at_any_time_the_same_call_ends_in_the_same_weights(own_task, tmp_path):
    whole = finetune(own_task, QUICK, tmp_path / "whole")

    def stop(at):
        def report(_name, done, total, said):
            if (said and at == "epoch") or (not said and at == "batch" and done > total / 2):
                raise KeyboardInterrupt

        return report

    out = tmp_path / "stopped"
    for at in ("epoch", "batch"):  # after the first epoch, then within the second
        with pytest.raises(KeyboardInterrupt):
            finetune(own_task, QUICK, out, stop(at))
        assert not out.exists()
    with pytest.raises(InputError, match=r"begun by another command .*seed"):
        finetune(own_task, dataclasses.replace(QUICK, seed=9), out)
    epochs = []
    finetune(own_task, QUICK, out, lambda _name, _done, _total, said: epochs.append(said) if said.startswith("epoch") else None)
    assert len(epochs) == 1, "the first epoch is not done again"
    assert same(whole, out)
    assert (whole / "teaching.json").read_text() == (out / "teaching.json").read_text()


def test_one_that_is_there_is_left_and_another_is_refused(own_task, tmp_path):
    out = finetune(own_task, QUICK, tmp_path / "out")
    before = (out / "model.safetensors").stat().st_mtime_ns
    finetune(own_task, QUICK, out)
    assert (out / "model.safetensors").stat().st_mtime_ns == before
    with pytest.raises(InputError, match="holds a teacher made with other epochs, seed"):
        finetune(own_task, dataclasses.replace(QUICK, seed=5, epochs=1), out)


def test_it_sees_train_alone_and_of_that_its_groups(own_task, tmp_path):
    rows = lambda config: finetune_module._rows(own_task, config, np.random.default_rng(0))  # noqa: E731
    taught, held = rows(QUICK)
    assert sorted([*taught, *held]) == list(range(len(own_task.train)))
    assert len(held) == round(0.1 * len(own_task.train))
    taught, held = rows(dataclasses.replace(QUICK, groups=("b",)))
    assert set(own_task.train.groups[taught]) | set(own_task.train.groups[held]) == {1}
    empty = dataclasses.replace(own_task, reward=own_task.train, validation=own_task.train, test=own_task.train)
    assert same(finetune(own_task, QUICK, tmp_path / "one"), finetune(empty, QUICK, tmp_path / "two"))


def test_it_stops_early_and_keeps_the_best_epoch(own_task, tmp_path):
    out = finetune(own_task, dataclasses.replace(QUICK, epochs=30, lr=0.3, label_noise=0.9), tmp_path / "out")
    losses = [epoch["held_out_loss"] for epoch in json.loads((out / "teaching.json").read_text())["history"]]
    assert len(losses) < 30
    assert int(np.argmin(losses)) == len(losses) - 3


def test_out_of_fold_no_training_text_is_answered_by_a_model_that_saw_it(own_task, tmp_path):
    out = finetune_folds(own_task, dataclasses.replace(QUICK, epochs=1), 3, tmp_path / "folded")
    folds = np.array([fold_of(text, 3) for text in own_task.train.inputs])
    assert np.bincount(folds).min() > len(folds) / 5
    for number in range(3):
        seen = np.concatenate(finetune_module._rows(own_task, dataclasses.replace(QUICK, fold=number, folds=3), np.random.default_rng(0)))
        assert not (folds[seen] == number).any()
        assert len(seen) == (folds != number).sum()
    teacher = FoldedTeacher(out, own_task)
    said = teacher(own_task.train.inputs[:30]).logits
    members = [CheckpointTeacher(str(out / f"fold-{number}"), own_task)(own_task.train.inputs[:30]).logits for number in range(3)]
    expected = torch.stack([members[folds[row]][row] for row in range(30)])
    torch.testing.assert_close(said, expected, atol=1e-5, rtol=1e-4)
    assert load_pool(str(out), own_task).names == ("folded",)
    assert fold_of("The  Film", 7) == fold_of("the film", 7)


@pytest.mark.parametrize("kind", ["json", "toml"])
def test_a_pool_file_is_taught_by_one_call_and_its_folder_is_a_pool(kind, own_task, tmp_path):
    tables = [
        {"name": "z", "model": QUICK.model, "epochs": 1, "groups": ["a"]},
        {"name": "a", "model": QUICK.model, "epochs": 1, "seed": 1},
    ]
    file = tmp_path / f"pool.{kind}"
    if kind == "json":
        file.write_text(json.dumps({"teachers": tables}))
    else:
        lines = ["[[teachers]]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in table.items()) for table in tables]
        file.write_text("".join(lines))
    out = pool_files.teach(file, own_task, tmp_path / "pool")
    pool = load_pool(str(out), own_task)
    assert pool.names == ("z", "a")
    assert same(out / "a", finetune(own_task, FinetuneConfig(QUICK.model, epochs=1, seed=1), tmp_path / "alone"))
    taught = load_pool(str(file), own_task)
    assert [one.fingerprint() for one in taught.teachers] == [one.fingerprint() for one in pool.teachers]
    assert load_pool(f"{out}/a,{tmp_path}/alone", own_task).names == ("a", "alone")


def test_a_folder_is_one_pool(own_task, tmp_path):
    file, out = tmp_path / "pool.json", tmp_path / "pool"
    file.write_text(json.dumps({"teachers": [{"name": "a", "model": QUICK.model, "epochs": 1}]}))
    finetune(own_task, dataclasses.replace(QUICK, epochs=1), out / "before")
    with pytest.raises(InputError, match=r"pool holds before, which .*pool\.json does not name; name another --out"):
        pool_files.teach(file, own_task, out)
    assert {path.name for path in out.iterdir()} == {"before"}
    shutil.rmtree(out)
    pool_files.teach(file, own_task, out)
    assert pool_files.teach(file, own_task, out) == out, "what is there is its own"
    finetune(own_task, dataclasses.replace(QUICK, epochs=1), out / "after")
    with pytest.raises(InputError, match=r"pool holds after, which its pool\.json does not name; delete the list to use all"):
        load_pool(str(out), own_task)
    (out / "pool.json").unlink()
    assert load_pool(str(out), own_task).names == ("a", "after")


def test_an_image_task_has_teachers_too(tmp_path):
    task = tasks.load("digits")
    few = dataclasses.replace(task, train=task.train.take(np.arange(300)))
    out = finetune(few, FinetuneConfig("tiny-vit(width=8,layers=1)", epochs=1), tmp_path / "vit")
    said = CheckpointTeacher(str(out), few)(few.train.inputs[:4])
    assert said.logits.shape == (4, 10)
    assert load_pool(f"{out},digits/experts/upright", task).names == ("vit", "upright")


def test_progress_is_plain_lines_in_a_pipe_and_nothing_when_quiet(own_data, tmp_path, capsys):
    words = ["teach", "--task", f"folder:{own_data}", "--model", QUICK.model, "--epochs", "2"]
    assert invoke([*words, "--out", str(tmp_path / "one")]) == 0
    said = capsys.readouterr()
    assert said.out == f"{tmp_path}/one\n"
    losses = r"train loss 0\.\d{3}, held-out loss 0\.\d{3}, accuracy 0\.\d{3}"
    assert re.search(rf"^one: epoch 2/2: {losses}; epoch [12] is kept$", said.err, re.M)
    assert re.search(r"^one: only \d\d updates in all: with so few examples give more --epochs and a higher --lr$", said.err, re.M)
    assert re.search(r"^one: \d+ of \d+ updates$", said.err, re.M)
    assert "\x1b" not in said.err
    assert invoke([*words, "--out", str(tmp_path / "two"), "--quiet"]) == 0
    assert capsys.readouterr() == (f"{tmp_path}/two\n", "")


def pool_of_groups(tmp_path, own_task, **groups):
    """A pool of a teacher a name, each taught the groups said, as ``load_pool`` opens it."""
    tables = [{"name": name, "model": QUICK.model, "epochs": 1, **config} for name, config in groups.items()]
    file = tmp_path / "pool.json"
    file.write_text(json.dumps({"teachers": tables}))
    return load_pool(str(file), own_task)


A, B = {"groups": ["a"]}, {"groups": ["b"]}


def test_the_teacher_of_each_group_is_known_and_the_oracle_asks_it(own_task, tmp_path):
    pool = pool_of_groups(tmp_path, own_task, second=B, first=A)
    assert own_task.group_names == ("a", "b")
    assert pool.best_for_group == (1, 0)
    assert pool.select(["first", "second"]).best_for_group == (0, 1)
    options = {"task": own_task, "student": "tiny-bert(width=16,layers=1,dropout=0)", "updates": 2, "action": "one"}
    selections = [{"teachers": pool}, {"teachers": str(tmp_path / "pool.json")}]
    for one in selections:
        env = gym.make_vec("kd_env/TeacherSelection-v0", num_envs=32, vectorization_mode="vector_entry_point", **options, **one).unwrapped
        observation, _ = env.reset(seed=0)
        chosen = Oracle(env).act(observation)
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
    ids=["one of all groups", "a group missing", "taught twice", "overlapping", "noisy labels"],
)
def test_it_is_not_known_whose_group_it_is_unless_each_was_taught_to_one(configs, own_task, tmp_path):
    assert pool_of_groups(tmp_path, own_task, **configs).best_for_group is None


def test_one_teacher_of_all_groups_by_name_is_the_one_of_each(own_task, tmp_path):
    assert pool_of_groups(tmp_path, own_task, every={"groups": ["b", "a"]}).best_for_group == (0, 0)


def test_folded_teachers_of_groups_and_checkpoints_made_elsewhere(own_task, make_checkpoint, tmp_path):
    config = dataclasses.replace(QUICK, epochs=1)
    finetune(own_task, dataclasses.replace(config, groups=("a",)), tmp_path / "pool" / "a")
    finetune_folds(own_task, dataclasses.replace(config, groups=("b",)), 2, tmp_path / "pool" / "b")
    assert load_pool(str(tmp_path / "pool"), own_task).best_for_group == (0, 1)
    assert load_pool(f"{tmp_path}/pool/b, {tmp_path}/pool/a", own_task).best_for_group == (1, 0)
    (tmp_path / "pool" / "b" / "fold-1" / "teaching.json").write_text("[]")
    assert load_pool(str(tmp_path / "pool"), own_task).best_for_group is None
    make_checkpoint(tmp_path / "other")
    assert load_pool(f"{tmp_path}/pool/a,{tmp_path}/other", own_task).best_for_group is None
