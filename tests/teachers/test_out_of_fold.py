"""Out-of-fold teachers: each example is answered by the model that was trained without its fold."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from kd_env import tasks
from kd_env.errors import InputError
from kd_env.tasks.views import with_views
from kd_env.teachers import load_pool
from kd_env.teachers.checkpoint import CheckpointTeacher
from kd_env.teachers.finetune_config import FinetuneConfig, fold_of
from kd_env.teachers.out_of_fold import OutOfFoldTeacher, finetune_folds
from kd_env.teachers.training_rows import training_rows

QUICK = FinetuneConfig("tiny-bert(width=16,layers=1)", epochs=2, seed=3)


@pytest.mark.long
def test_no_training_text_is_answered_by_a_model_that_was_trained_on_it(own_task, tmp_path):
    out = finetune_folds(own_task, dataclasses.replace(QUICK, epochs=1), 3, tmp_path / "folded")
    folds = np.array([fold_of(text, 3) for text in own_task.train.inputs])
    assert np.bincount(folds).min() > len(folds) / 5
    for number in range(3):
        seen = np.concatenate(training_rows(own_task, dataclasses.replace(QUICK, fold=number, folds=3), np.random.default_rng(0)))
        assert not (folds[seen] == number).any()
        assert len(seen) == (folds != number).sum()
    teacher = OutOfFoldTeacher(out, own_task)
    logits = teacher(own_task.train.inputs[:30]).logits
    members = [CheckpointTeacher(str(out / f"fold-{number}"), own_task)(own_task.train.inputs[:30]).logits for number in range(3)]
    expected = torch.stack([members[folds[row]][row] for row in range(30)])
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-4)
    assert load_pool(str(out), own_task).names == ("folded",)


def test_a_folder_without_the_number_of_folds_is_refused(own_task, tmp_path):
    for content in (None, "{}", "[1]", json.dumps({"folds": "many"})):
        if content is not None:
            (tmp_path / "folds.json").write_text(content)
        with pytest.raises(InputError, match=r"folds\.json: it does not hold the number of folds; make that teacher again"):
            OutOfFoldTeacher(tmp_path, own_task)


def test_stored_views_are_refused(tmp_path):
    digits = tasks.load("digits")
    task = dataclasses.replace(digits, train=with_views(digits.train.take(np.arange(300)), 2, "t"))
    for make in (lambda: finetune_folds(task, FinetuneConfig("tiny-vit"), 2, tmp_path / "out"), lambda: OutOfFoldTeacher(tmp_path, task)):
        with pytest.raises(InputError, match="the stored views of one image would be in several folds; leave views out, or --folds"):
            make()


def test_one_fold_and_a_folder_of_something_else_are_refused(own_task, tmp_path):
    with pytest.raises(InputError, match="folds=1: must be at least 2, at most 100; leave it out for one teacher of all examples"):
        finetune_folds(own_task, QUICK, 1, tmp_path / "out")
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(InputError, match="holds something that kd-env teach --folds did not write; name a new folder"):
        finetune_folds(own_task, QUICK, 2, tmp_path)


@pytest.mark.long
def test_a_partial_fold_does_not_stand_in_the_way(own_task, tmp_path):
    def stop(name, _done, _total, message):
        if name == "fold-1" and message:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        finetune_folds(own_task, QUICK, 2, tmp_path / "out", stop)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"fold-0", ".fold-1.partial"}
    finetune_folds(own_task, QUICK, 2, tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"fold-0", "fold-1", "folds.json"}
