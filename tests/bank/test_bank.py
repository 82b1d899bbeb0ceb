"""The bank holds the outputs of the teachers, is built once, and is either complete or built again."""

import dataclasses
import errno
import json
import os
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from known_teachers import (
    SIZES,
    Linear,
    image_task,
    left_behind,
    make_pool,
)

from kd_env.bank.bank import DamagedBankError, KnowledgeBank, open_bank
from kd_env.bank.fingerprint import fingerprint
from kd_env.errors import InputError


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


def full_disk(*arguments):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_is_an_error_that_names_the_file_before_any_teacher_has_run(tmp_path, monkeypatch):
    allocate, calls = os.posix_fallocate, []

    def fails(*arguments):
        calls.append(arguments)
        (full_disk if len(calls) > 2 else allocate)(*arguments)  # the arrays of train fit

    monkeypatch.setattr(os, "posix_fallocate", fails)
    pool = make_pool()
    with pytest.raises(OSError, match="No space left") as caught:
        open_bank(image_task(), pool, tmp_path / "bank")
    assert caught.value.filename == str(tmp_path / ".bank.partial" / "reward.logits.npy")
    assert pool.teachers[0].examples == 1, "for the shapes"


def test_a_disk_that_is_full_later_keeps_what_is_finished(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("kd_env.bank.build.write_checksums", full_disk)
        with pytest.raises(OSError, match="No space left"):
            open_bank(image_task(), make_pool(), tmp_path / "bank")
    pool = make_pool()
    open_bank(image_task(), pool, tmp_path / "bank")
    assert pool.teachers[0].examples == 1, "for the shapes"


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
