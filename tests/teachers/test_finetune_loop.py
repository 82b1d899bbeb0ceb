"""The loop of fine-tuning: which examples it is trained on, and when it stops."""

import dataclasses
import json

import numpy as np
import pytest

from kd_env.errors import InputError
from kd_env.teachers.finetune import finetune
from kd_env.teachers.finetune_config import FinetuneConfig, fold_of
from kd_env.teachers.finetune_loop import training_rows

QUICK = FinetuneConfig("tiny-bert(width=16,layers=1)", epochs=2, seed=3)


def rows(task, **changes):
    """Rows to learn from and held-out rows, as sets."""
    chosen, held_out = training_rows(task, dataclasses.replace(QUICK, **changes), np.random.default_rng(0))
    assert set(chosen).isdisjoint(held_out)
    return set(chosen), set(held_out)


def test_a_tenth_of_train_is_held_out(own_task):
    chosen, held_out = rows(own_task)
    assert chosen | held_out == set(range(len(own_task.train)))
    assert len(held_out) == round(0.1 * len(own_task.train))


def test_groups_fraction_and_fold_choose_the_examples(own_task):
    everything = set.union(*rows(own_task))
    of_group = set.union(*rows(own_task, groups=("b",)))
    assert of_group == {row for row in everything if own_task.train.groups[row] == 1}
    assert len(set.union(*rows(own_task, fraction=0.5))) == round(0.5 * len(everything))
    without_fold = set.union(*rows(own_task, fold=1, folds=3))
    assert without_fold == {row for row in everything if fold_of(own_task.train.inputs[row], 3) != 1}


def test_examples_without_a_label_are_left_out(own_task):
    labels = np.where(np.arange(len(own_task.train)) % 4 == 0, -1, own_task.train.labels)
    task = dataclasses.replace(own_task, train=dataclasses.replace(own_task.train, labels=labels), unlabelled=True)
    assert set.union(*rows(task)) == set(np.flatnonzero(labels >= 0))


def test_too_few_examples_are_refused(own_task):
    with pytest.raises(InputError, match=r"25 examples to learn from are too few; give it more groups, a larger fraction, or fewer folds"):
        rows(own_task, fraction=25 / len(own_task.train))


def test_it_stops_early_and_keeps_the_best_epoch(own_task, tmp_path):
    out = finetune(own_task, dataclasses.replace(QUICK, epochs=30, lr=0.3, label_noise=0.9), tmp_path / "out")
    losses = [epoch["held_out_loss"] for epoch in json.loads((out / "teaching.json").read_text())["history"]]
    assert len(losses) < 30
    assert int(np.argmin(losses)) == len(losses) - 3
