"""The bank holds the outputs of the teachers, is built once, and is either complete or built again."""

import dataclasses
import errno
import json
import os
import statistics
import time
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import psutil
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
)

from kd_env import tasks
from kd_env.bank.bank import DamagedBankError, KnowledgeBank, open_bank
from kd_env.bank.fingerprint import FORMAT, describe, fingerprint
from kd_env.errors import InputError
from kd_env.teachers import Pool


def test_a_bank_holds_the_outputs_of_the_teachers(tmp_path):
    task, pool = image_task(), make_pool()
    bank = open_bank(task, pool, tmp_path / "bank")
    assert (bank.teachers, bank.num_teachers, bank.widths) == (("one", "two"), 2, [2, 5])
    for split in ("train", "reward", "validation"):
        inputs = getattr(task, split).inputs
        assert bank.size(split) == len(inputs)
        rows = np.array([7, 0, len(inputs) - 1, 7])
        outputs = bank.gather(split, rows)
        for k, teacher in enumerate(pool.teachers):
            expected = teacher.outputs(inputs[rows])
            np.testing.assert_allclose(outputs.logits[:, k], expected.logits, rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(outputs.features[k], expected.features, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(bank.gather(split, slice(None)).logits[rows], outputs.logits)


def test_a_gathered_batch_is_a_copy_and_the_memory_map_is_read_only(tmp_path):
    bank = open_bank(image_task(), make_pool(), tmp_path / "bank")
    before = bank.gather("train", np.arange(4)).logits
    bank.gather("train", np.arange(4)).logits[:] = 0.0
    assert np.array_equal(bank.gather("train", np.arange(4)).logits, before)
    with pytest.raises(ValueError, match="read-only"):
        bank.gather("train", slice(0, 4)).logits[:] = 0.0


def test_the_test_split_is_never_in_a_bank(tmp_path):
    task, pool = image_task(), make_pool()
    open_bank(task, pool, tmp_path / "bank")
    examples = 1 + SIZES["train"] + SIZES["reward"] + SIZES["validation"]  # one example comes first, for the shapes
    assert [teacher.examples for teacher in pool.teachers] == [examples, examples]
    assert not any("test" in name for name in left_behind(tmp_path / "bank"))
    other_test = dataclasses.replace(task, test=task.validation)
    assert fingerprint(other_test, pool) == fingerprint(task, pool) == fingerprint(task.development(), pool)


def test_teachers_are_run_once(tmp_path):
    task = image_task()
    first = open_bank(task, make_pool(), tmp_path / "bank")
    again = make_pool()
    second = open_bank(task, again, tmp_path / "bank")
    assert [teacher.examples for teacher in again.teachers] == [0, 0]
    assert second.fingerprint == first.fingerprint
    renamed = make_pool()
    open_bank(image_task("another name"), renamed, tmp_path / "bank")
    assert [teacher.examples for teacher in renamed.teachers] == [0, 0], "content decides, not the name"


def test_the_cache_keeps_a_bank_for_each_content(tmp_path, monkeypatch):
    monkeypatch.setenv("KD_ENV_CACHE", str(tmp_path))
    first = open_bank(image_task(), make_pool())
    other = open_bank(image_task(shift=1.0), make_pool())
    assert tmp_path in first.directory.parents
    assert first.directory != other.directory
    again = make_pool()
    assert open_bank(image_task(), again).directory == first.directory
    assert again.teachers[0].examples == 0


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
    other_teachers = "teachers one, two, not" in reason
    advice = "name the same with --teachers, or another folder" if other_teachers else "name another folder or delete it"
    assert str(refused.value) == f"bank {place} {reason}; {advice}"
    assert KnowledgeBank(place).fingerprint == kept


def test_the_name_of_the_pool_does_not_matter(tmp_path, monkeypatch):
    monkeypatch.setenv("KD_ENV_CACHE", str(tmp_path))
    first = open_bank(image_task(), make_pool())
    other = open_bank(image_task(), dataclasses.replace(make_pool(), name="a/b,c(d=1)"))
    assert first.directory == other.directory
    assert first.directory.parent == tmp_path / "banks"
    assert first.directory != open_bank(image_task(shift=1.0), make_pool()).directory


def test_each_teacher_is_scored_on_validation(tmp_path):
    task, pool = image_task(), make_pool()
    scores = open_bank(task, pool, tmp_path / "bank").scores(task)
    predictions = [teacher(task.validation.inputs).logits.argmax(1).numpy() for teacher in pool.teachers]
    assert scores == {name: (classes == task.validation.labels).mean() for name, classes in zip(pool.names, predictions, strict=True)}
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
    "widths": lambda bank: (bank / "bank.json").write_text((bank / "bank.json").read_text().replace('"bytes": ', '"bytes": 1', 1)),
    "checksum": lambda bank: (bank / "bank.json").write_text((bank / "bank.json").read_text().replace('"half": false', '"half": true')),
    "another format": lambda bank: (bank / "bank.json").write_text('{"format": 0}'),
    "empty": lambda bank: [path.unlink() for path in bank.iterdir()],
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_bank_is_built_again(tmp_path, damage):
    task, place = image_task(), tmp_path / "bank"
    whole = open_bank(task, make_pool(), place).gather("train", slice(None)).logits.copy()
    DAMAGES[damage](place)
    with pytest.raises(DamagedBankError):
        KnowledgeBank(place)
    pool = make_pool()
    with nullcontext() if damage == "empty" else pytest.warns(UserWarning, match="bank is damaged and is built again"):
        rebuilt = open_bank(task, pool, place)
    assert pool.teachers[0].examples > SIZES["train"]
    assert np.array_equal(rebuilt.gather("train", slice(None)).logits, whole)
    assert left_behind(tmp_path) == {"bank"}


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EIO, errno.EACCES])
@pytest.mark.parametrize("file", ["bank.json", "train.features.npy"])
def test_an_error_of_the_moment_is_not_damage(tmp_path, monkeypatch, number, file):
    task, place = image_task(), tmp_path / "bank"
    open_bank(task, make_pool(), place)
    before = (place / "train.features.npy").stat().st_ino
    open_file = Path.open

    def fails(self, *arguments, **options):
        if self.name == file:
            raise OSError(number, os.strerror(number), str(self))
        return open_file(self, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", fails)
        with pytest.raises(OSError, match=os.strerror(number)):
            open_bank(task, make_pool(), place)
    assert (place / "train.features.npy").stat().st_ino == before
    open_bank(task, make_pool(), place)
    assert (place / "train.features.npy").stat().st_ino == before


def test_a_bank_of_an_older_version_has_no_checksum_and_is_opened(tmp_path):
    task, place = image_task(), tmp_path / "bank"
    open_bank(task, make_pool(), place)
    meta = json.loads((place / "bank.json").read_text())
    del meta["checksum"]
    (place / "bank.json").write_text(json.dumps(meta))
    assert open_bank(task, make_pool(), place).meta == meta
    meta["widths"][0] += 1
    (place / "bank.json").write_text(json.dumps(meta))
    with pytest.raises(DamagedBankError, match="are of different teachers"):
        KnowledgeBank(place)


def test_a_full_disk_is_an_error_that_names_the_file_and_keeps_what_is_finished(tmp_path, monkeypatch):
    allocate, calls = os.posix_fallocate, []

    def fails(*arguments):
        calls.append(arguments)
        if len(calls) > 2:  # the arrays of train fit
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        allocate(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", fails)
        with pytest.raises(OSError, match="No space left") as caught:
            open_bank(image_task(), make_pool(), tmp_path / "bank")
    assert caught.value.filename == str(tmp_path / ".bank.partial" / "reward.logits.npy")
    pool = make_pool()
    open_bank(image_task(), pool, tmp_path / "bank")
    assert pool.teachers[0].examples < SIZES["train"]


def test_a_folder_without_bank_json_is_built_again_in_the_cache_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("KD_ENV_CACHE", str(tmp_path / "cache"))
    cached = open_bank(image_task(), make_pool())
    (cached.directory / "bank.json").unlink()
    pool = make_pool()
    with pytest.warns(UserWarning, match="bank is damaged and is built again"):
        assert open_bank(image_task(), pool).size("train") == SIZES["train"]
    assert pool.teachers[0].examples > 0
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


def test_layers_and_attention_are_kept_if_they_are_asked_for(tmp_path):
    task, pool = image_task(), layered_pool()
    plain = open_bank(task, layered_pool(), tmp_path / "plain")
    assert plain.keeps == frozenset()
    assert not any("layers" in name or "attention" in name for name in left_behind(tmp_path / "plain"))
    bank = open_bank(task, pool, tmp_path / "bank", keep=LAYERS | ATTENTION)
    assert bank.keeps == LAYERS | ATTENTION
    assert [bank.shape("layers", k) for k in range(2)] == [(2, 2), (2, 5)]
    assert [bank.shape("attention", k) for k in range(2)] == [(2, 3, 3)] * 2
    rows = np.array([300, 2, 2])
    for split, extra in (("train", LAYERS | ATTENTION), ("reward", LAYERS), ("validation", LAYERS)):
        chosen = rows % bank.size(split)
        outputs = bank.gather(split, chosen, extra)
        for k, teacher in enumerate(pool.teachers):
            expected = teacher.outputs(getattr(task, split).inputs[chosen])
            np.testing.assert_allclose(outputs.layers[k], expected.layers, rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(outputs.logits[:, k], expected.logits, rtol=1e-5, atol=1e-6)
            if "attention" in extra:
                np.testing.assert_allclose(outputs.attention[k], expected.attention, rtol=1e-5, atol=1e-6)
    few = bank.gather("train", rows)
    assert (few.layers, few.attention) == ((), ())


def test_a_bank_that_keeps_more_can_be_used_and_one_that_keeps_less_cannot(tmp_path):
    task = image_task()
    more = open_bank(task, layered_pool(), tmp_path / "more", keep=LAYERS | ATTENTION)
    for keep in (frozenset(), LAYERS, ATTENTION, LAYERS | ATTENTION):
        pool = layered_pool()
        assert open_bank(task, pool, tmp_path / "more", keep=keep).fingerprint == more.fingerprint
        assert [teacher.examples for teacher in pool.teachers] == [0, 0]
    open_bank(task, layered_pool(), tmp_path / "less", keep=LAYERS)
    with pytest.raises(InputError, match=r"bank .*less holds no attention; name another folder or delete it"):
        open_bank(task, layered_pool(), tmp_path / "less", keep=LAYERS | ATTENTION)
    open_bank(task, layered_pool(), tmp_path / "least")
    with pytest.raises(InputError, match="holds no attention and no layers"):
        open_bank(task, layered_pool(), tmp_path / "least", keep=LAYERS | ATTENTION)
    others = make_pool(Layered("one", 3, 2), Layered("two", 2, 5))
    with pytest.raises(InputError, match="was made from other weights of these teachers"):
        open_bank(task, others, tmp_path / "more")


def test_the_cache_has_one_bank_for_each_set_of_outputs(tmp_path, monkeypatch):
    monkeypatch.setenv("KD_ENV_CACHE", str(tmp_path))
    places = {open_bank(image_task(), layered_pool(), keep=keep).directory for keep in (frozenset(), LAYERS, ATTENTION, LAYERS | ATTENTION)}
    assert len(places) == 4


@pytest.mark.parametrize("name", ["train.attention.1.npy", "validation.layers.0.npy"])
def test_a_bank_that_has_lost_layers_or_attention_is_built_again(tmp_path, name):
    place, keep = tmp_path / "bank", LAYERS | ATTENTION
    whole = open_bank(image_task(), layered_pool(), place, keep=keep).gather("train", np.arange(9), keep)
    (place / name).unlink()
    with pytest.raises(DamagedBankError):
        KnowledgeBank(place)
    pool = layered_pool()
    with pytest.warns(UserWarning, match="bank is damaged and is built again"):
        opened = open_bank(image_task(), pool, place, keep=keep)
    rebuilt = opened.gather("train", np.arange(9), keep)
    assert pool.teachers[0].examples > SIZES["train"]
    assert np.array_equal(rebuilt.attention[1], whole.attention[1])


def test_half_precision_is_half_the_size_and_gathers_float32(tmp_path):
    task = tasks.load("digits")
    full, half = (open_bank(task, Pool("p", (Interruptible(scale=0.1),)), tmp_path / str(half), half=half) for half in (False, True))
    sizes = [sum(path.stat().st_size for path in bank.directory.glob("*.npy")) for bank in (full, half)]
    assert sizes[1] == pytest.approx(sizes[0] / 2, rel=0.02)
    ours, theirs = full.gather("train", np.arange(50)), half.gather("train", np.arange(50))
    assert theirs.logits.dtype == theirs.features[0].dtype == np.float32
    np.testing.assert_allclose(theirs.logits, ours.logits, rtol=1e-3, atol=1e-6)
    assert full.fingerprint != half.fingerprint
    assert open_bank(task, Pool("p", (Interruptible(scale=0.1),)), tmp_path / "True").half, "it is used as it is"


def write_large(folder, examples, teachers=4, classes=4, width=2):
    """Write a bank in the public format, in blocks, whose values are the numbers of their rows."""
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
    KnowledgeBank(tmp_path / "bank")  # the first open also pays for imports and a cold disk
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
    for rows in [*batches, *batches]:  # the second time is warm
        started = time.perf_counter()
        outputs = bank.gather("train", rows)
        gathers.append(time.perf_counter() - started)
        assert (outputs.logits == rows[:, None, None].astype(np.float32)).all()
        assert (outputs.features[3] == rows[:, None].astype(np.float32)).all()
    warm = statistics.median(gathers[300:])
    print(f"\nopen {1e3 * min(times):.1f} ms, memory grown by {grown:.1f} MB, a warm batch of 32 in {1e6 * warm:.0f} microseconds")
    assert min(times) < 0.1
    assert grown < 8, "the file has 96 MB"
    assert warm < 0.2e-3
