"""The bank holds what the teachers said, is made once, and is either whole or not there."""

import dataclasses
import json
import multiprocessing
import statistics
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from kd_env import tasks
from kd_env.bank.bank import DamagedBankError, KnowledgeBank, open_bank
from kd_env.bank.build import FORMAT, describe, fingerprint
from kd_env.errors import InputError
from kd_env.models.networks import build
from kd_env.tasks import Defaults, Split, Task
from kd_env.teachers import NetworkTeacher, Pool
from kd_env.types import ModelOutput

SIZES = {"train": 600, "reward": 40, "validation": 30, "test": 20}  # train is more than one build batch of 256


def image_task(name="tiny", shift=0.0):
    rng = np.random.default_rng(0)
    splits = {
        split: Split(rng.random((size, 1, 2, 2)).astype(np.float32) + shift, np.arange(size) % 3, np.arange(size) % 2)
        for split, size in SIZES.items()
    }
    return Task(
        name=name, kind="image", class_names=("a", "b", "c"), group_names=("g", "h"), **splits,
        defaults=Defaults(pool="none", student="mlp", updates=1, kd_weight=1.0, temperature=2.0),
    )  # fmt: skip


@dataclasses.dataclass
class Linear:
    """A teacher whose answer is known: pixels times a fixed matrix. It counts the examples it is asked about."""

    name: str
    seed: int = 0
    width: int = 2
    asked: int = 0
    spoil: object = None  # called with the number of examples asked so far and the output

    def fingerprint(self):
        return f"linear{self.seed}-{self.width}"

    def say(self, inputs):
        pixels = torch.from_numpy(inputs).flatten(1)
        rng = np.random.default_rng(self.seed)
        return ModelOutput(*(pixels @ torch.from_numpy(rng.normal(size=(4, n))).float() for n in (3, self.width)))

    def __call__(self, inputs):
        self.asked += len(inputs)
        output = self.say(inputs)
        return self.spoil(self.asked, output) if self.spoil else output


def make_pool(*teachers):
    return Pool("lines", teachers or (Linear("one", 1, 2), Linear("two", 2, 5)))


def left_behind(folder):
    return {path.name for path in folder.iterdir() if not path.name.endswith(".lock")}


def test_it_holds_what_the_teachers_say(tmp_path):
    task, pool = image_task(), make_pool()
    bank = open_bank(task, pool, tmp_path / "bank")
    assert (bank.teachers, bank.num_teachers, bank.widths) == (("one", "two"), 2, [2, 5])
    for split in ("train", "reward", "validation"):
        inputs = getattr(task, split).inputs
        assert bank.size(split) == len(inputs)
        rows = np.array([7, 0, len(inputs) - 1, 7])
        said = bank.gather(split, rows)
        for k, teacher in enumerate(pool.teachers):
            expected = teacher.say(inputs[rows])
            np.testing.assert_allclose(said.logits[:, k], expected.logits, rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(said.features[k], expected.features, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(bank.gather(split, slice(None)).logits[rows], said.logits)


def test_a_gathered_batch_is_a_copy_and_the_map_cannot_be_written(tmp_path):
    bank = open_bank(image_task(), make_pool(), tmp_path / "bank")
    before = bank.gather("train", np.arange(4)).logits
    bank.gather("train", np.arange(4)).logits[:] = 0.0
    assert np.array_equal(bank.gather("train", np.arange(4)).logits, before)
    with pytest.raises(ValueError, match="read-only"):
        bank.gather("train", slice(0, 4)).logits[:] = 0.0


def test_test_is_never_in_it(tmp_path):
    task, pool = image_task(), make_pool()
    open_bank(task, pool, tmp_path / "bank")
    asked_once = 1 + SIZES["train"] + SIZES["reward"] + SIZES["validation"]  # the one tells the width
    assert [teacher.asked for teacher in pool.teachers] == [asked_once, asked_once]
    assert not any("test" in name for name in left_behind(tmp_path / "bank"))
    other_test = dataclasses.replace(task, test=task.validation)
    assert fingerprint(other_test, pool) == fingerprint(task, pool) == fingerprint(task.development(), pool)


def test_teachers_are_asked_once(tmp_path):
    task = image_task()
    first = open_bank(task, make_pool(), tmp_path / "bank")
    again = make_pool()
    second = open_bank(task, again, tmp_path / "bank")
    assert [teacher.asked for teacher in again.teachers] == [0, 0]
    assert second.fingerprint == first.fingerprint
    renamed = make_pool()
    open_bank(image_task("another name"), renamed, tmp_path / "bank")
    assert [teacher.asked for teacher in renamed.teachers] == [0, 0], "content decides, not the name"


def test_the_cache_keeps_a_bank_for_each_content(tmp_path, monkeypatch):
    monkeypatch.setenv("KD_ENV_CACHE", str(tmp_path))
    one = open_bank(image_task(), make_pool())
    other = open_bank(image_task(shift=1.0), make_pool())
    assert tmp_path in one.directory.parents
    assert one.directory != other.directory
    again = make_pool()
    assert open_bank(image_task(), again).directory == one.directory
    assert again.teachers[0].asked == 0


@pytest.mark.parametrize(
    ("task", "pool", "reason"),
    [
        (image_task(shift=1.0), make_pool(), "was made from other data than task 'tiny'"),
        (image_task(), make_pool(Linear("one", 1, 2)), "holds the teachers one, two, not one"),
        (image_task(), make_pool(Linear("two", 2, 5), Linear("one", 1, 2)), "holds the teachers one, two, not two, one"),
        (image_task(), make_pool(Linear("one", 3, 2), Linear("two", 2, 5)), "was made from other weights of these teachers"),
    ],
)
def test_a_bank_of_something_else_is_refused_with_the_reason(tmp_path, task, pool, reason):
    place = tmp_path / "bank"
    kept = open_bank(image_task(), make_pool(), place).fingerprint
    with pytest.raises(InputError) as refused:
        open_bank(task, pool, place)
    mend = "name the same with --teachers, or another folder" if "teachers one, two, not" in reason else "name another folder or delete it"
    assert str(refused.value) == f"bank {place} {reason}; {mend}"
    assert KnowledgeBank(place).fingerprint == kept


def test_the_same_teachers_spelled_otherwise_have_the_same_bank(tmp_path, monkeypatch):
    monkeypatch.setenv("KD_ENV_CACHE", str(tmp_path))
    one = open_bank(image_task(), make_pool())
    other = open_bank(image_task(), dataclasses.replace(make_pool(), name="a/b,c(d=1)"))
    assert one.directory == other.directory
    assert one.directory.parent == tmp_path / "banks"
    assert one.directory != open_bank(image_task(shift=1.0), make_pool()).directory


def test_each_teacher_is_scored_on_validation(tmp_path):
    task, pool = image_task(), make_pool()
    scores = open_bank(task, pool, tmp_path / "bank").scores(task)
    said = [teacher(task.validation.inputs).logits.argmax(1).numpy() for teacher in pool.teachers]
    assert scores == {name: (one == task.validation.labels).mean() for name, one in zip(pool.names, said, strict=True)}
    assert len(set(scores.values())) == 2


def flip(path, position):
    content = bytearray(path.read_bytes())
    content[position] ^= 0x40
    path.write_bytes(content)


DAMAGES = {
    "truncated": lambda bank: (bank / "train.logits.npy").write_bytes((bank / "train.logits.npy").read_bytes()[:-4]),
    "longer": lambda bank: (bank / "reward.features.npy").write_bytes((bank / "reward.features.npy").read_bytes() + b"more"),
    "flipped byte": lambda bank: flip(bank / "validation.logits.npy", -5),
    "flipped header": lambda bank: flip(bank / "train.features.npy", 3),
    "missing file": lambda bank: (bank / "train.features.npy").unlink(),
    "broken json": lambda bank: (bank / "bank.json").write_text('{"format": 1, "teach'),
    "not an object": lambda bank: (bank / "bank.json").write_text("[1, 2]"),
    "lacking a key": lambda bank: (bank / "bank.json").write_text('{"format": 1}'),
    "files no object": lambda bank: (bank / "bank.json").write_text('{"format": 1, "teachers": [], "widths": [], "files": [1]}'),
    "no files": lambda bank: (bank / "bank.json").write_text('{"format": 1, "teachers": [], "widths": [], "files": {}}'),
    "another format": lambda bank: (bank / "bank.json").write_text('{"format": 0}'),
    "empty": lambda bank: [path.unlink() for path in bank.iterdir()],
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_bank_is_made_again(tmp_path, damage):
    task, place = image_task(), tmp_path / "bank"
    whole = open_bank(task, make_pool(), place).gather("train", slice(None)).logits.copy()
    DAMAGES[damage](place)
    with pytest.raises(DamagedBankError):
        KnowledgeBank(place)
    pool = make_pool()
    mended = open_bank(task, pool, place)
    assert pool.teachers[0].asked > SIZES["train"]
    assert np.array_equal(mended.gather("train", slice(None)).logits, whole)
    assert left_behind(tmp_path) == {"bank"}


def test_a_bank_without_its_description_is_rebuilt_in_the_cache_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("KD_ENV_CACHE", str(tmp_path / "cache"))
    cached = open_bank(image_task(), make_pool())
    (cached.directory / "bank.json").unlink()
    pool = make_pool()
    assert open_bank(image_task(), pool).size("train") == SIZES["train"]
    assert pool.teachers[0].asked > 0
    own = tmp_path / "own"
    own.mkdir()
    (own / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="holds something that is not a bank"):
        open_bank(image_task(), make_pool(), own)
    (own / "bank.json").write_text("notes on banks")
    with pytest.raises(InputError, match=r"not a bank \(thesis\.txt\)"):
        open_bank(image_task(), make_pool(), own)
    assert (own / "thesis.txt").read_text() == "years of work"


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "bank").write_text("not a folder")
    with pytest.raises(InputError, match="is a file; a bank is a folder"):
        open_bank(image_task(), make_pool(), tmp_path / "bank")


def spoiled(what, at, value):
    """A ``spoil`` that puts ``value`` into what is said about example ``at`` of train (the first call asks for one example's width)."""

    def spoil(asked, output):
        first = asked - 1 - len(output.logits)
        if len(output.logits) > 1 and first <= at < asked - 1:
            getattr(output, what)[at - first, 0] = value
        return output

    return spoil


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("what", ["logits", "features"])
@pytest.mark.parametrize("at", [3, 300])
def test_what_is_not_finite_names_teacher_split_and_example(tmp_path, what, at, value):
    pool = make_pool(Linear("fine", 1), Linear("broken", 2, spoil=spoiled(what, at, value)))
    with pytest.raises(InputError, match=rf"teacher 'broken': {what} of train example {at} are not finite; mend or leave out"):
        open_bank(image_task(), pool, tmp_path / "bank")
    assert left_behind(tmp_path) == set()


def test_what_is_not_finite_in_another_split_is_named_there(tmp_path):
    pool = make_pool(Linear("broken", 2, spoil=spoiled("logits", SIZES["train"] + 5, float("nan"))))
    with pytest.raises(InputError, match="logits of reward example 5 are not finite"):
        open_bank(image_task(), pool, tmp_path / "bank")
    assert left_behind(tmp_path) == set()


@pytest.mark.parametrize(
    ("cut", "said"),
    [
        (lambda o: ModelOutput(o.logits[:, :2], o.features), r"'odd' gave logits of shape \(256, 2\)"),
        (lambda o: ModelOutput(o.logits[:-1], o.features), r"'odd' gave logits of shape \(255, 3\)"),
        (lambda o: ModelOutput(o.logits, o.features[:, :1]), r"'odd' gave features of shape \(256, 1\)"),
        (lambda o: ModelOutput(o.logits, o.features[0]), r"'odd' gave features of shape \(2,\)"),
    ],
)  # fmt: skip
def test_a_wrong_shape_is_named(tmp_path, cut, said):
    pool = make_pool(Linear("odd", 2, spoil=lambda _, output: output if len(output.logits) == 1 else cut(output)))
    with pytest.raises(InputError, match=said):
        open_bank(image_task(), pool, tmp_path / "bank")
    assert left_behind(tmp_path) == set()


def test_a_teacher_that_fails_midway_leaves_nothing(tmp_path):
    def fail(asked, output):
        if asked > 300:
            raise RuntimeError("out of memory")
        return output

    with pytest.raises(RuntimeError, match="out of memory"):
        open_bank(image_task(), make_pool(Linear("fine", 1), Linear("failing", 2, spoil=fail)), tmp_path / "bank")
    assert left_behind(tmp_path) == set()
    assert open_bank(image_task(), make_pool(), tmp_path / "bank").size("train") == SIZES["train"]


def test_a_failed_rebuild_keeps_nothing_half_written(tmp_path):
    """The damaged bank stays as it was: what is built beside it moves in only when whole."""
    place = tmp_path / "bank"
    open_bank(image_task(), make_pool(), place)
    DAMAGES["truncated"](place)
    broken = make_pool(Linear("one", 1, 2), Linear("two", 2, 5, spoil=spoiled("logits", 0, float("nan"))))
    with pytest.raises(InputError, match="not finite"):
        open_bank(image_task(), broken, place)
    assert left_behind(tmp_path) == {"bank"}
    assert open_bank(image_task(), make_pool(), place).size("train") == SIZES["train"]


def test_remains_of_a_killed_build_are_cleared(tmp_path):
    (tmp_path / ".bank.partial").mkdir()
    (tmp_path / ".bank.partial" / "train.logits.npy").write_text("torn")
    open_bank(image_task(), make_pool(), tmp_path / "bank")
    assert left_behind(tmp_path) == {"bank"}


def build_slowly(place, barrier, asked):
    def slow(_, output):
        time.sleep(0.05)
        return output

    teacher = Linear("slow", 1, spoil=slow)
    barrier.wait()
    bank = open_bank(image_task(), make_pool(teacher), place)
    asked.put((teacher.asked, float(bank.gather("train", slice(None)).logits.sum())))


def test_two_processes_at_once_make_one_bank(tmp_path):
    context = multiprocessing.get_context("fork")
    barrier, asked = context.Barrier(2), context.Queue()
    workers = [context.Process(target=build_slowly, args=(tmp_path / "bank", barrier, asked)) for _ in range(2)]
    for worker in workers:
        worker.start()
    (least, one), (most, other) = sorted(asked.get(timeout=60) for _ in workers)
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    assert least == 0, "the second waits and finds the bank of the first"
    assert most == 1 + SIZES["train"] + SIZES["reward"] + SIZES["validation"]
    assert one == other
    assert left_behind(tmp_path) == {"bank"}


def test_progress_counts_up_to_every_split_of_every_teacher(tmp_path):
    said = []
    open_bank(image_task(), make_pool(), tmp_path / "bank", lambda *what: said.append(what))
    ends = [
        (f"{teacher}, {split}", SIZES[split], SIZES[split]) for split in ("train", "reward", "validation") for teacher in ("one", "two")
    ]
    assert [what for what in said if what[1] == what[2]] == ends
    assert ("one, train", 256, 600) in said


# layers and attention

LAYERS, ATTENTION = frozenset({"layers"}), frozenset({"attention"})


@dataclasses.dataclass
class Telling(Linear):
    """A teacher that shows two layers, and attention over three places."""

    def say(self, inputs):
        output = super().say(inputs)
        layers = torch.stack([output.features, 2 * output.features], 1)
        scores = output.logits[:, None, None] * torch.arange(1.0, 4.0).view(3, 1) * torch.tensor([1.0, -1.0]).view(2, 1, 1)
        return output._replace(layers=layers, attention=scores.softmax(3))


def telling_pool():
    return make_pool(Telling("one", 1, 2), Telling("two", 2, 5))


def test_layers_and_attention_are_kept_where_they_are_asked_for(tmp_path):
    task, pool = image_task(), telling_pool()
    plain = open_bank(task, telling_pool(), tmp_path / "plain")
    assert plain.keeps == frozenset()
    assert not any("layers" in name or "attention" in name for name in left_behind(tmp_path / "plain"))
    bank = open_bank(task, pool, tmp_path / "bank", keep=LAYERS | ATTENTION)
    assert bank.keeps == LAYERS | ATTENTION
    assert [bank.shape("layers", k) for k in range(2)] == [(2, 2), (2, 5)]
    assert [bank.shape("attention", k) for k in range(2)] == [(2, 3, 3)] * 2
    rows = np.array([300, 2, 2])
    for split, extra in (("train", LAYERS | ATTENTION), ("reward", LAYERS), ("validation", LAYERS)):
        chosen = rows % bank.size(split)
        said = bank.gather(split, chosen, extra)
        for k, teacher in enumerate(pool.teachers):
            expected = teacher.say(getattr(task, split).inputs[chosen])
            np.testing.assert_allclose(said.layers[k], expected.layers, rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(said.logits[:, k], expected.logits, rtol=1e-5, atol=1e-6)
            if "attention" in extra:
                np.testing.assert_allclose(said.attention[k], expected.attention, rtol=1e-5, atol=1e-6)
    few = bank.gather("train", rows)
    assert (few.layers, few.attention) == ((), ())


def test_attention_is_kept_of_the_train_split_alone(tmp_path):
    bank = open_bank(image_task(), telling_pool(), tmp_path / "bank", keep=ATTENTION)
    assert {name for name in left_behind(tmp_path / "bank") if "attention" in name} == {"train.attention.0.npy", "train.attention.1.npy"}
    assert bank.shape("attention", 1) == (2, 3, 3)


def test_attention_of_texts_is_padded_to_the_longest_of_the_split(tmp_path, monkeypatch):
    """A batch is as wide as its own longest text; what is beyond is zero, in rows and columns."""
    monkeypatch.setattr("kd_env.bank.build.BATCH", 3)
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


def test_a_bank_that_keeps_more_serves_too_and_one_that_keeps_less_does_not(tmp_path):
    task = image_task()
    more = open_bank(task, telling_pool(), tmp_path / "more", keep=LAYERS | ATTENTION)
    for keep in (frozenset(), LAYERS, ATTENTION, LAYERS | ATTENTION):
        pool = telling_pool()
        assert open_bank(task, pool, tmp_path / "more", keep=keep).fingerprint == more.fingerprint
        assert [teacher.asked for teacher in pool.teachers] == [0, 0]
    open_bank(task, telling_pool(), tmp_path / "less", keep=LAYERS)
    with pytest.raises(InputError, match=r"bank .*less holds no attention; name another folder or delete it"):
        open_bank(task, telling_pool(), tmp_path / "less", keep=LAYERS | ATTENTION)
    open_bank(task, telling_pool(), tmp_path / "least")
    with pytest.raises(InputError, match="holds no attention and no layers"):
        open_bank(task, telling_pool(), tmp_path / "least", keep=LAYERS | ATTENTION)
    others = make_pool(Telling("one", 3, 2), Telling("two", 2, 5))
    with pytest.raises(InputError, match="was made from other weights of these teachers"):
        open_bank(task, others, tmp_path / "more")


def test_the_cache_keeps_a_bank_for_each_that_is_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("KD_ENV_CACHE", str(tmp_path))
    places = {open_bank(image_task(), telling_pool(), keep=keep).directory for keep in (frozenset(), LAYERS, ATTENTION, LAYERS | ATTENTION)}
    assert len(places) == 4


@pytest.mark.parametrize("part", ["layers", "attention"])
def test_a_teacher_that_shows_none_is_named(tmp_path, part):
    with pytest.raises(InputError, match=rf"teacher 'two' shows no {part}; leave out the knowledge types"):
        open_bank(image_task(), make_pool(Telling("one", 1), Linear("two", 2)), tmp_path / "bank", keep=frozenset({part}))
    assert left_behind(tmp_path) == set()


@pytest.mark.parametrize(("part", "at"), [("layers", 3), ("layers", 300), ("attention", 300)])
def test_layers_and_attention_that_are_not_finite_are_named(tmp_path, part, at):
    pool = make_pool(Telling("broken", 2, spoil=spoiled(part, at, float("nan"))))
    with pytest.raises(InputError, match=rf"teacher 'broken': {part} of train example {at} are not finite"):
        open_bank(image_task(), pool, tmp_path / "bank", keep=LAYERS | ATTENTION)
    assert left_behind(tmp_path) == set()


@pytest.mark.parametrize(
    ("cut", "said"),
    [
        (lambda o: o._replace(attention=o.attention[:, :, :2]), r"gave attention of shape \(256, 2, 2, 3\), expected \(256, 2, 3, 3\)"),
        (lambda o: o._replace(attention=None), r"teacher 'odd' gave attention of shape None"),
        (lambda o: o._replace(layers=o.layers[:, :1]), r"gave layers of shape \(256, 1, 2\), expected \(256, 2, 2\)"),
    ],
)
def test_layers_and_attention_of_a_wrong_shape_are_named(tmp_path, cut, said):
    pool = make_pool(Telling("odd", 2, spoil=lambda _, output: output if len(output.logits) == 1 else cut(output)))
    with pytest.raises(InputError, match=said):
        open_bank(image_task(), pool, tmp_path / "bank", keep=LAYERS | ATTENTION)
    assert left_behind(tmp_path) == set()


@pytest.mark.parametrize("name", ["train.attention.1.npy", "validation.layers.0.npy"])
def test_a_bank_that_has_lost_layers_or_attention_is_made_again(tmp_path, name):
    place, keep = tmp_path / "bank", LAYERS | ATTENTION
    whole = open_bank(image_task(), telling_pool(), place, keep=keep).gather("train", np.arange(9), keep)
    (place / name).unlink()
    with pytest.raises(DamagedBankError):
        KnowledgeBank(place)
    pool = telling_pool()
    mended = open_bank(image_task(), pool, place, keep=keep).gather("train", np.arange(9), keep)
    assert pool.teachers[0].asked > SIZES["train"]
    assert np.array_equal(mended.attention[1], whole.attention[1])


# size


def write_large(folder, examples, teachers=4, classes=4, width=2):
    """A bank in the public format, written in blocks, with values that tell their row."""
    folder.mkdir()
    for split, size in {"train": examples, "reward": 100, "validation": 100}.items():
        for what, shape in {"logits": (size, teachers, classes), "features": (size, teachers * width)}.items():
            table = np.lib.format.open_memmap(folder / f"{split}.{what}.npy", "w+", np.float32, shape)
            for start in range(0, size, 1 << 17):
                rows = np.arange(start, min(start + (1 << 17), size), dtype=np.float32)
                table[start : start + len(rows)] = rows.reshape(-1, *[1] * (len(shape) - 1))
            table.flush()
            del table
    files = {path.name: describe(path) for path in sorted(folder.glob("*.npy"))}
    meta = {
        "format": FORMAT,
        "fingerprint": "f",
        "task": "t",
        "teachers": list("abcd"),
        "widths": [width] * teachers,
        "layers": False,
        "files": files,
    }
    (folder / "bank.json").write_text(json.dumps(meta))


def test_a_million_examples_open_at_once_and_gather_fast(tmp_path: Path):
    write_large(tmp_path / "bank", 1_000_000)
    KnowledgeBank(tmp_path / "bank")  # what stands in the way of a first open, imports and a cold disk, is not the bank's
    process = psutil.Process()
    before = process.memory_info().rss
    times = []
    for _ in range(5):
        started = time.perf_counter()
        bank = KnowledgeBank(tmp_path / "bank")
        times.append(time.perf_counter() - started)
    grown = (process.memory_info().rss - before) / 2**20
    rng = np.random.default_rng(0)
    batches = [rng.integers(1_000_000, size=32) for _ in range(300)]
    gathers = []
    for rows in [*batches, *batches]:  # the second time round is warm
        started = time.perf_counter()
        said = bank.gather("train", rows)
        gathers.append(time.perf_counter() - started)
        assert (said.logits == rows[:, None, None].astype(np.float32)).all()
        assert (said.features[3] == rows[:, None].astype(np.float32)).all()
    warm = statistics.median(gathers[300:])
    print(f"\nopen {1e3 * min(times):.1f} ms, memory grown by {grown:.1f} MB, a warm batch of 32 in {1e6 * warm:.0f} microseconds")
    assert min(times) < 0.1
    assert grown < 8, "the file has 96 MB"
    assert warm < 0.2e-3


class Speaker:
    """Says what its inputs hold, counts what it was asked, and may be stopped."""

    name = "speaker"

    def __init__(self, stop_after=None, scale=1.0):
        self.asked, self.stop_after, self.scale = 0, stop_after, scale

    def fingerprint(self):
        return f"speaker {self.scale}"

    def __call__(self, inputs):
        if self.stop_after is not None and self.asked >= self.stop_after:
            raise KeyboardInterrupt
        self.asked += len(inputs)
        values = self.scale * torch.from_numpy(inputs).flatten(1)
        return ModelOutput(values[:, :10], values[:, :5])


def test_a_build_that_was_killed_carries_on_where_it_was(tmp_path, monkeypatch):
    monkeypatch.setattr("kd_env.bank.build.SHARD", 512)
    task = tasks.load("digits")
    whole, stopped, again = Speaker(), Speaker(stop_after=1100), Speaker()
    expected = open_bank(task, Pool("p", (whole,)), tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        open_bank(task, Pool("p", (stopped,)), tmp_path / "bank")
    assert not (tmp_path / "bank").exists()
    bank = open_bank(task, Pool("p", (again,)), tmp_path / "bank")
    assert again.asked == whole.asked - 1024, "two shards of 512 are not asked again"
    assert bank.meta == expected.meta
    assert {path.name for path in (tmp_path / "bank").iterdir()} == {path.name for path in (tmp_path / "whole").iterdir()}
    assert not (tmp_path / ".bank.partial").exists()


def test_what_another_build_left_is_not_carried_on(tmp_path):
    task = tasks.load("digits")
    with pytest.raises(KeyboardInterrupt):
        open_bank(task, Pool("p", (Speaker(stop_after=2000),)), tmp_path / "bank")
    bank = open_bank(task, Pool("p", (Speaker(scale=2.0),)), tmp_path / "bank")
    assert bank.meta["files"] == open_bank(task, Pool("p", (Speaker(scale=2.0),)), tmp_path / "other").meta["files"]


def test_half_precision_is_half_the_size_and_is_given_as_float32(tmp_path):
    task = tasks.load("digits")
    full, half = (open_bank(task, Pool("p", (Speaker(scale=0.1),)), tmp_path / str(half), half=half) for half in (False, True))
    sizes = [sum(path.stat().st_size for path in bank.directory.glob("*.npy")) for bank in (full, half)]
    assert sizes[1] == pytest.approx(sizes[0] / 2, rel=0.02)
    ours, theirs = full.gather("train", np.arange(50)), half.gather("train", np.arange(50))
    assert theirs.logits.dtype == theirs.features[0].dtype == np.float32
    np.testing.assert_allclose(theirs.logits, ours.logits, rtol=1e-3, atol=1e-6)
    assert full.fingerprint != half.fingerprint
    assert open_bank(task, Pool("p", (Speaker(scale=0.1),)), tmp_path / "True").half, "it serves as it is"


def test_what_half_precision_cannot_hold_is_refused(tmp_path):
    with pytest.raises(InputError, match="are not finite in half precision"):
        open_bank(tasks.load("digits"), Pool("p", (Speaker(scale=1e6),)), tmp_path / "bank", half=True)
    assert not list(tmp_path.glob("*bank*/*"))
