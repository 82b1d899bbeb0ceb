"""What a bank keeps besides logits and features, in which precision, and how fast a large one opens."""

import json
import statistics
import time
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
    image_task,
    layered_pool,
    left_behind,
    make_pool,
)

from kd_env import tasks
from kd_env.bank.bank import DamagedBankError, KnowledgeBank, open_bank
from kd_env.bank.fingerprint import FORMAT, describe
from kd_env.errors import InputError
from kd_env.teachers import Pool


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


@pytest.mark.long
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
