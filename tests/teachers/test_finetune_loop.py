"""The loop of fine-tuning: which examples it is trained on, and when it stops."""

import dataclasses
import json

import numpy as np
import pytest

from kd_env import tasks
from kd_env.errors import InputError
from kd_env.tasks.views import with_views
from kd_env.teachers.finetune import finetune
from kd_env.teachers.finetune_config import FinetuneConfig, fold_of
from kd_env.teachers.finetune_loop import FinetuneLoop
from kd_env.teachers.training_rows import training_rows

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


def test_the_views_of_a_held_out_image_are_not_learned_from():
    digits = tasks.load("digits")
    task = dataclasses.replace(digits, train=with_views(digits.train.take(np.arange(300)), 4, "t")).shuffled()
    originals = task.train.originals
    learned, held_out = training_rows(task, FinetuneConfig("tiny-vit", fraction=0.5), np.random.default_rng(0))
    assert len(held_out) == len(set(originals[held_out])) == 16
    assert np.array_equal(np.bincount(originals[learned]), np.isin(np.arange(300), originals[learned])[: originals[learned].max() + 1] * 4)
    assert len(learned) == 4 * (150 - 16)
    assert not set(originals[learned]) & set(originals[held_out])


def test_examples_without_a_label_are_left_out(own_task):
    labels = np.where(np.arange(len(own_task.train)) % 4 == 0, -1, own_task.train.labels)
    task = dataclasses.replace(own_task, train=dataclasses.replace(own_task.train, labels=labels), unlabelled=True)
    assert set.union(*rows(task)) == set(np.flatnonzero(labels >= 0))


def test_too_few_examples_are_refused(own_task):
    with pytest.raises(InputError, match=r"25 examples to learn from are too few; give it more groups, a larger fraction, or fewer folds"):
        rows(own_task, fraction=25 / len(own_task.train))


@pytest.mark.long
def test_it_stops_early_and_keeps_the_best_epoch(own_task, tmp_path):
    out = finetune(own_task, dataclasses.replace(QUICK, epochs=30, lr=0.3, label_noise=0.9), tmp_path / "out")
    losses = [epoch["held_out_loss"] for epoch in json.loads((out / "teaching.json").read_text())["history"]]
    assert len(losses) < 30
    assert int(np.argmin(losses)) == len(losses) - 3


@pytest.mark.parametrize("by_length", [True, False])
def test_mini_batches_have_texts_of_similar_length(by_length, own_task, tmp_path):
    config = dataclasses.replace(QUICK, batch_size=8, by_length=by_length).filled(own_task)
    texts = np.array([" ".join(["word"] * (1 + row % 24)) for row in range(len(own_task.train))], dtype=object)
    task = dataclasses.replace(own_task, train=dataclasses.replace(own_task.train, inputs=texts))
    loop = FinetuneLoop(task, config, tmp_path / "state", {})
    batches, again = loop._batches(0), loop._batches(1)
    assert len(batches) == loop._num_batches
    seen = np.concatenate(batches)
    assert len(set(seen)) == len(seen) >= len(loop._labels) // 8 * 8
    lengths = loop._inputs["attention_mask"].sum(1).numpy()
    padding = sum(lengths[rows].max() * len(rows) for rows in batches) / lengths[seen].sum()
    assert bool(padding < 1.25) == by_length
    assert [set(rows) for rows in batches] != [set(rows) for rows in again], "another epoch has other mini-batches"


def test_teachers_of_before_are_still_complete(own_task, tmp_path):
    """A folder that was written when mini-batches were always random has no ``by_length`` in its file."""
    config = dataclasses.replace(QUICK, epochs=1, by_length=False)
    finetune(own_task, config, tmp_path / "out")
    assert "by_length" not in json.loads((tmp_path / "out" / "teaching.json").read_text())
    before = (tmp_path / "out" / "teaching.json").stat().st_mtime_ns
    finetune(own_task, config, tmp_path / "out")
    assert (tmp_path / "out" / "teaching.json").stat().st_mtime_ns == before
    with pytest.raises(InputError, match="holds a teacher made with other by_length"):
        finetune(own_task, dataclasses.replace(config, by_length=True), tmp_path / "out")
