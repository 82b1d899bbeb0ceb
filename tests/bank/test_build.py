"""Building a bank: outputs that are refused, and builds that fail or run twice at once."""

import dataclasses
import multiprocessing
import time

import numpy as np
import pytest
from known_teachers import (
    ATTENTION,
    LAYERS,
    SIZES,
    Interruptible,
    Layered,
    Linear,
    image_task,
    layered_pool,
    left_behind,
    make_pool,
    spoiled,
)

from kd_env import tasks
from kd_env.bank.bank import open_bank
from kd_env.errors import InputError
from kd_env.models.networks import build
from kd_env.teachers import NetworkTeacher, Pool
from kd_env.types import ModelOutput


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("what", ["logits", "features"])
@pytest.mark.parametrize("at", [3, 300])
def test_an_output_that_is_not_finite_names_teacher_split_and_example(tmp_path, what, at, value):
    pool = make_pool(Linear("fine", 1), Linear("broken", 2, spoil=spoiled(what, at, value)))
    with pytest.raises(InputError, match=rf"teacher 'broken': {what} of train example {at} are not finite; fix or leave out that teacher"):
        open_bank(image_task(), pool, tmp_path / "bank")
    assert left_behind(tmp_path) == set()


def test_an_output_that_is_not_finite_in_another_split_names_that_split(tmp_path):
    pool = make_pool(Linear("broken", 2, spoil=spoiled("logits", SIZES["train"] + 5, float("nan"))))
    with pytest.raises(InputError, match="logits of reward example 5 are not finite"):
        open_bank(image_task(), pool, tmp_path / "bank")
    assert left_behind(tmp_path) == set()


@pytest.mark.parametrize(
    ("cut", "message"),
    [
        (lambda o: ModelOutput(o.logits[:, :2], o.features), r"'odd' gave logits of shape \(256, 2\)"),
        (lambda o: ModelOutput(o.logits[:-1], o.features), r"'odd' gave logits of shape \(255, 3\)"),
        (lambda o: ModelOutput(o.logits, o.features[:, :1]), r"'odd' gave features of shape \(256, 1\)"),
        (lambda o: ModelOutput(o.logits, o.features[0]), r"'odd' gave features of shape \(2,\)"),
    ],
)  # fmt: skip
def test_a_wrong_shape_is_named(tmp_path, cut, message):
    pool = make_pool(Linear("odd", 2, spoil=lambda _, output: output if len(output.logits) == 1 else cut(output)))
    with pytest.raises(InputError, match=message):
        open_bank(image_task(), pool, tmp_path / "bank")
    assert left_behind(tmp_path) == set()


def test_a_teacher_that_fails_midway_leaves_nothing(tmp_path):
    def fail(examples, output):
        if examples > 300:
            raise RuntimeError("out of memory")
        return output

    with pytest.raises(InputError, match="out of memory"):
        open_bank(image_task(), make_pool(Linear("fine", 1), Linear("failing", 2, spoil=fail)), tmp_path / "bank")
    assert left_behind(tmp_path) == set()
    assert open_bank(image_task(), make_pool(), tmp_path / "bank").size("train") == SIZES["train"]


def test_a_failed_rebuild_keeps_nothing_half_written(tmp_path):
    """The damaged bank stays as it was: a new one is built beside it and moved there when it is complete."""
    place = tmp_path / "bank"
    open_bank(image_task(), make_pool(), place)
    (place / "train.logits.npy").write_bytes((place / "train.logits.npy").read_bytes()[:-4])
    broken = make_pool(Linear("one", 1, 2), Linear("two", 2, 5, spoil=spoiled("logits", 0, float("nan"))))
    with pytest.raises(InputError, match="not finite"), pytest.warns(UserWarning, match="is built again"):
        open_bank(image_task(), broken, place)
    assert left_behind(tmp_path) == {"bank"}
    with pytest.warns(UserWarning, match="is built again"):
        assert open_bank(image_task(), make_pool(), place).size("train") == SIZES["train"]


def test_what_a_build_of_something_else_left_is_deleted(tmp_path):
    (tmp_path / ".bank.partial").mkdir()
    (tmp_path / ".bank.partial" / "train.logits.npy").write_text("torn")
    open_bank(image_task(), make_pool(), tmp_path / "bank")
    assert left_behind(tmp_path) == {"bank"}


def build_slowly(place, barrier, results):
    def slow(_, output):
        time.sleep(0.05)
        return output

    teacher = Linear("slow", 1, spoil=slow)
    barrier.wait()
    bank = open_bank(image_task(), make_pool(teacher), place)
    results.put((teacher.examples, float(bank.gather("train", slice(None)).logits.sum())))


def test_two_processes_at_once_build_one_bank(tmp_path):
    context = multiprocessing.get_context("fork")
    barrier, results = context.Barrier(2), context.Queue()
    workers = [context.Process(target=build_slowly, args=(tmp_path / "bank", barrier, results)) for _ in range(2)]
    for worker in workers:
        worker.start()
    (least, first_sum), (most, second_sum) = sorted(results.get(timeout=60) for _ in workers)
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    assert least == 0, "the second waits and opens the bank of the first"
    assert most == 1 + SIZES["train"] + SIZES["reward"] + SIZES["validation"]
    assert first_sum == second_sum
    assert left_behind(tmp_path) == {"bank"}


def test_progress_counts_up_for_every_split_and_teacher(tmp_path):
    calls = []
    open_bank(image_task(), make_pool(), tmp_path / "bank", lambda *arguments: calls.append(arguments))
    ends = [
        (f"{teacher}, {split}", SIZES[split], SIZES[split]) for split in ("train", "reward", "validation") for teacher in ("one", "two")
    ]
    assert [call for call in calls if call[1] == call[2]] == ends
    assert ("one, train", 256, 600) in calls


def test_attention_is_kept_of_the_train_split_alone(tmp_path):
    bank = open_bank(image_task(), layered_pool(), tmp_path / "bank", keep=ATTENTION)
    arrays = {name for name in left_behind(tmp_path / "bank") if "attention" in name and not name.endswith(".crc.npy")}
    assert arrays == {"train.attention.0.npy", "train.attention.1.npy"}
    assert bank.shape("attention", 1) == (2, 3, 3)


def test_attention_of_texts_is_padded_to_the_longest_of_the_split(tmp_path, monkeypatch):
    """A batch is as wide as its own longest text; the rows and columns beyond are zero."""
    monkeypatch.setattr("kd_env.bank.shards.BATCH", 3)
    task = tasks.load("domains(train=160,reward=48,validation=32,test=16)")
    by_length = np.argsort([len(text.split()) for text in task.train.inputs])
    task = dataclasses.replace(task, train=task.train.take(by_length))
    teacher = NetworkTeacher("bert", build("tiny-bert(width=8,layers=1,dropout=0)", task, 0), task)
    bank = open_bank(task, Pool("texts", (teacher,)), tmp_path / "bank", keep=ATTENTION)
    _, longest, _ = bank.shape("attention", 0)
    kept = bank.gather("train", slice(None), ATTENTION).attention[0]
    lengths = [int(task.tokenizer()([text], return_tensors="pt")["attention_mask"].sum()) for text in task.train.inputs]
    assert longest == max(lengths) > min(lengths)
    for row in (0, 1, 80, 159):
        length = lengths[row]
        alone = teacher(task.train.inputs[row : row + 1]).attention[0]
        assert alone.shape == (2, length, length)
        np.testing.assert_allclose(kept[row, :, :length, :length], alone, rtol=1e-4, atol=1e-6)
        assert not kept[row, :, length:].any()
        assert not kept[row, :, :, length:].any()
    np.testing.assert_allclose(kept.sum(3), (np.arange(longest) < np.array(lengths)[:, None])[:, None].repeat(2, 1), atol=1e-5)


@pytest.mark.parametrize("part", ["layers", "attention"])
def test_a_teacher_without_layers_or_attention_is_named(tmp_path, part):
    with pytest.raises(InputError, match=rf"teacher 'two' has no {part}; leave out the knowledge types"):
        open_bank(image_task(), make_pool(Layered("one", 1), Linear("two", 2)), tmp_path / "bank", keep=frozenset({part}))
    assert left_behind(tmp_path) == set()


@pytest.mark.parametrize(("part", "at"), [("layers", 3), ("layers", 300), ("attention", 300)])
def test_layers_and_attention_that_are_not_finite_are_named(tmp_path, part, at):
    pool = make_pool(Layered("broken", 2, spoil=spoiled(part, at, float("nan"))))
    with pytest.raises(InputError, match=rf"teacher 'broken': {part} of train example {at} are not finite"):
        open_bank(image_task(), pool, tmp_path / "bank", keep=LAYERS | ATTENTION)
    assert left_behind(tmp_path) == set()


@pytest.mark.parametrize(
    ("cut", "message"),
    [
        (lambda o: o._replace(attention=o.attention[:, :, :2]), r"gave attention of shape \(256, 2, 2, 3\), expected \(256, 2, 3, 3\)"),
        (lambda o: o._replace(attention=None), r"teacher 'odd' gave attention of shape None"),
        (lambda o: o._replace(layers=o.layers[:, :1]), r"gave layers of shape \(256, 1, 2\), expected \(256, 2, 2\)"),
    ],
)
def test_layers_and_attention_of_a_wrong_shape_are_named(tmp_path, cut, message):
    pool = make_pool(Layered("odd", 2, spoil=lambda _, output: output if len(output.logits) == 1 else cut(output)))
    with pytest.raises(InputError, match=message):
        open_bank(image_task(), pool, tmp_path / "bank", keep=LAYERS | ATTENTION)
    assert left_behind(tmp_path) == set()


def test_values_too_large_for_half_precision_are_refused(tmp_path):
    with pytest.raises(InputError, match="are not finite in half precision"):
        open_bank(tasks.load("digits"), Pool("p", (Interruptible(scale=1e6),)), tmp_path / "bank", half=True)
    assert not list(tmp_path.glob("*bank*/*"))
