"""Live teachers: they answer as the bank does, for inputs that change from update to update, and snapshots restore what they answered."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from small_runs import digest, drive, start

from kd_env import tasks
from kd_env.bank import open_bank
from kd_env.distillation import EncodedTask
from kd_env.errors import InputError
from kd_env.models.networks import build
from kd_env.randomness import stream
from kd_env.tasks.augmentation import Augmentation
from kd_env.teachers import NetworkTeacher, Pool, load_pool
from kd_env.teachers.live import LiveTeachers

CHANGES = "crop(padding=1),flip,cutout(size=3)"


@pytest.fixture(scope="module")
def live_data(digits_data):
    pool = load_pool("digits/experts", digits_data.task)
    return replace(digits_data, live=LiveTeachers.of(pool, torch.device("cpu")))


def begin(data, seed=0, **keywords):
    return start(data, seed, **({"teacher_answers": "live", "student": "mlp(width=8)"} | keywords))


@pytest.mark.parametrize("keywords", [{}, {"calibrate_teachers": True}, {"precision": "float64"}, {"num_students": 2}])
def test_live_answers_equal_those_of_the_bank(live_data, keywords):
    run, banked = begin(live_data, **keywords), begin(live_data, teacher_answers="bank", **keywords)
    for _ in range(3):
        batch, expected = run.observe(), banked.observe()
        torch.testing.assert_close(batch.teacher_logits, expected.teacher_logits, atol=1e-6, rtol=1e-6)
        for features, stored in zip(batch.teacher_features, expected.teacher_features, strict=True):
            torch.testing.assert_close(features, stored, atol=1e-6, rtol=1e-6)
        drive(run, 1), drive(banked, 1)


def test_augmented_inputs_are_seen_by_student_and_teachers_alike(live_data):
    run = begin(live_data, augmentation=CHANGES, num_students=2)
    drive(run, 2)
    batch, rows = run.observe(), run.observe().example_ids.reshape(2, -1)
    images = [Augmentation.of(CHANGES)(live_data.task.train.inputs[rows[s]], stream(s, "augmentation", 2)) for s in range(2)]
    augmented = np.concatenate(images)
    assert np.array_equal(run.batch_inputs()["pixel_values"].numpy(), augmented)
    expected = torch.stack([teacher(augmented).logits for teacher in live_data.live.teachers], 1).detach()
    torch.testing.assert_close(batch.teacher_logits, expected)
    assert not np.array_equal(augmented, live_data.task.train.inputs[batch.example_ids])


def test_peers_see_the_same_views(live_data):
    run = begin(live_data, augmentation=CHANGES, num_students=2, knowledge="response,peer")
    images = run.observe() and run.batch_inputs()["pixel_values"]
    assert torch.equal(images[:8], images[8:])


@pytest.mark.parametrize("observed", [False, True])
def test_a_restored_run_sees_the_same_views_and_answers(live_data, observed):
    run, undisturbed = begin(live_data, 3, augmentation=CHANGES), begin(live_data, 3, augmentation=CHANGES)
    drive(run, 4), drive(undisturbed, 4)
    if observed:
        run.observe()
    state, outcomes = run.snapshot(), drive(run, 4)
    other = begin(live_data, 9, augmentation=CHANGES)
    other.restore(state)
    twin = other.fork()
    assert drive(other, 4) == drive(twin, 4) == drive(undisturbed, 4) == outcomes
    assert digest(other) == digest(twin) == digest(run)


def test_a_snapshot_of_other_answers_is_refused(live_data):
    state = begin(live_data, augmentation=CHANGES).snapshot()
    for keywords in ({}, {"augmentation": "flip"}, {"teacher_answers": "bank"}):
        with pytest.raises(InputError):
            begin(live_data, **keywords).restore(state)


def test_passes_of_the_teachers_are_counted(live_data):
    run = begin(live_data, num_students=2)
    assert run.answers.forward_examples(run.update + 1).tolist() == [4 * 8] * 2, "K teachers, B examples"
    assert begin(live_data, teacher_answers="bank").answers.forward_examples(np.array([9])).tolist() == [0]


def test_what_cannot_answer_live_is_refused(live_data, text_data):
    with pytest.raises(InputError, match=r"^augmentation='flip': a bank holds fixed answers to stored inputs; add teacher_answers=live$"):
        begin(live_data, teacher_answers="bank", augmentation="flip")
    with pytest.raises(InputError, match="the data have no teachers"):
        begin(text_data, student="tiny-bert(width=8,layers=1)")
    with pytest.raises(InputError, match=r"task 'domains.*' has texts; leave augmentation out"):
        start(replace(text_data, live=live_data.live), teacher_answers="live", augmentation="flip", student="tiny-bert(width=8,layers=1)")


@pytest.mark.long
def test_feature_maps_are_those_of_the_bank_and_of_learning_teachers():
    task = tasks.load("digits")
    task = replace(
        task, train=task.train.take(np.arange(32)), reward=task.reward.take(np.arange(16)), validation=task.validation.take(np.arange(16))
    )
    pool = Pool("residual", tuple(NetworkTeacher(f"net{k}", build("resnet8(width=2)", task, k), task) for k in range(2)))
    bank = open_bank(task, pool, keep=frozenset({"maps", "maps.stage2"}))
    data = EncodedTask.of(task, bank, "resnet8(width=2)", LiveTeachers.of(pool, torch.device("cpu")))
    keywords = {"student": "resnet8(width=2)", "knowledge": "response,map_hint,attention_transfer(stages=stage2)", "reward_labels": 8}
    live, banked = begin(data, **keywords).observe(), begin(data, teacher_answers="bank", **keywords).observe()
    for answered, stored in zip(live.teacher_maps, banked.teacher_maps, strict=True):
        torch.testing.assert_close(answered, stored, atol=1e-6, rtol=1e-5)
    for answered, stored in zip(live.teacher_stages, banked.teacher_stages, strict=True):
        assert set(answered) == {"stage2"}
        torch.testing.assert_close(answered["stage2"], stored["stage2"], atol=1e-6, rtol=1e-5)
    learning = begin(data, teacher_learning="feedback(label_weight=0,lr=0.01)", **keywords)
    before = learning.observe().teacher_maps[0]
    drive(learning, 1)
    rows = learning.observe().example_ids
    assert before.shape == learning.observe().teacher_maps[0].shape
    fresh = torch.from_numpy(bank.gather("train", rows, frozenset({"maps"})).maps[0])
    assert not torch.allclose(learning.observe().teacher_maps[0], fresh, atol=1e-4), "the teachers have learned through their maps"
