"""Records come back as written, whatever kills or crowds the writer."""

import gzip
import json
import math
import multiprocessing
import re
import threading

import numpy as np
import pytest
from filelock import FileLock

from kd_env.benchmark.records import FIELDS, FinishedTrials, append, finished, read, trial_id
from kd_env.errors import InputError

ARGUMENTS = {
    "task": "domains",
    "pool": "experts",
    "policy": "gradient_credit(router_start=True)",
    "student": "mlp",
    "updates": 10,
    "reward_labels": 64,
    "seed": 3,
    "config": {"kd_weight": 1.0, "nested": {"b": [1, 2], "a": None}},
}


TYPED = {
    **dict.fromkeys(("task", "policy", "access", "student", "pool", "metric", "device"), "x"),
    **dict.fromkeys(("seed", "updates", "reward_labels", "wall_s", "peak_rss_mb"), 0),
    **{"versions": {}, "config": {}, "teachers": [], "curve": [], "diverged": False},
}


def record(trial, **changes):
    return dict.fromkeys(FIELDS) | TYPED | {"trial": trial} | changes


def append_many(directory, name):
    for number in range(20):
        append(directory, record(f"{name}{number}", suite="x" * 20_000))


def test_records_come_back_in_order(tmp_path):
    written = [record("a", curve=[{"update": 0, "validation": 0.5}], config={"k": [1, 2]}), record("b", seed=1)]
    for each in written:
        append(tmp_path / "new folder", each)
    assert read(tmp_path / "new folder") == written
    assert finished(tmp_path / "new folder") == {"a", "b"}


def test_what_is_not_finite_is_null_and_numpy_is_plain(tmp_path):
    append(tmp_path, record("a", test=math.nan, validation=np.float32("inf"), updates=np.int64(3), selection_rate=np.array([0.5, np.nan])))
    line = (tmp_path / "results.jsonl").read_text()
    assert "NaN" not in line
    assert "Infinity" not in line
    assert read(tmp_path) == [record("a", test=None, validation=None, updates=3, selection_rate=[0.5, None])]


@pytest.mark.parametrize("torn", [b'{"trial": "b", "te', json.dumps(record("b")).encode()[:-1], b"[1]", b"7"])
def test_a_torn_last_line_is_skipped_and_then_removed(tmp_path, torn):
    append(tmp_path, record("a"))
    with (tmp_path / "results.jsonl").open("ab") as file:
        file.write(torn)
    assert finished(tmp_path) == {"a"}
    append(tmp_path, record("c"))
    assert [r["trial"] for r in read(tmp_path)] == ["a", "c"]
    assert (tmp_path / "results.jsonl").read_bytes().count(b"\n") == 2


def test_a_last_record_that_lacks_its_newline_counts_and_is_kept(tmp_path):
    append(tmp_path, record("a"))
    with (tmp_path / "results.jsonl").open("ab") as file:
        file.write(json.dumps(record("b")).encode())
    ids = FinishedTrials(tmp_path)
    assert finished(tmp_path) == ids.update() == {"a", "b"}
    append(tmp_path, record("c"))
    assert [each["trial"] for each in read(tmp_path)] == ["a", "b", "c"]
    assert ids.update() == {"a", "b", "c"}


def test_a_file_that_is_one_torn_line_starts_anew(tmp_path):
    (tmp_path / "results.jsonl").write_bytes(b'{"tri')
    assert finished(tmp_path) == set()
    append(tmp_path, record("a"))
    assert finished(tmp_path) == {"a"}


@pytest.mark.parametrize("bad", ['{"trial": ', "[1]", '{"trial": "b"}'])
def test_a_bad_line_in_the_middle_is_named(tmp_path, bad):
    append(tmp_path, record("a"))
    with (tmp_path / "results.jsonl").open("a") as file:
        file.write(bad + "\n" + json.dumps(record("c")) + "\n")
    with pytest.raises(InputError, match=r"results\.jsonl, line 2"):
        read(tmp_path)


def test_blank_lines_are_no_records(tmp_path):
    append(tmp_path, record("a"))
    with (tmp_path / "results.jsonl").open("a") as file:
        file.write("\n \n")
    assert finished(tmp_path) == {"a"}
    append(tmp_path, record("b"))
    assert finished(tmp_path) == {"a", "b"}


def compress(directory):
    """What `gzip` does, or `gzip -c >>` where there is a compressed file already."""
    plain = directory / "results.jsonl"
    with (directory / "results.jsonl.gz").open("ab") as file:
        file.write(gzip.compress(plain.read_bytes()))
    plain.unlink()


def test_compressed_records_are_read_before_those_appended_since(tmp_path):
    append(tmp_path, record("a", test=0.1))
    append(tmp_path, record("b"))
    compress(tmp_path)
    assert read(tmp_path) == [record("a", test=0.1), record("b")]
    append(tmp_path, record("c"))
    append(tmp_path, record("a", test=0.2))
    expected = [record("a", test=0.2), record("b"), record("c")]
    assert read(tmp_path) == expected
    assert finished(tmp_path) == {"a", "b", "c"}
    compress(tmp_path)
    assert read(tmp_path) == expected, "compressed in two parts"


@pytest.mark.parametrize("spoil", [lambda whole: whole[:-9], lambda whole: b"no gzip", lambda whole: whole[:20] + b"!!" + whole[22:]])
def test_a_compressed_file_that_is_not_whole_is_refused(tmp_path, spoil):
    append(tmp_path, record("a"))
    compress(tmp_path)
    file = tmp_path / "results.jsonl.gz"
    file.write_bytes(spoil(file.read_bytes()))
    with pytest.raises(InputError, match=r"results\.jsonl\.gz: not a complete gzip file"):
        read(tmp_path)


def test_nothing_recorded(tmp_path):
    assert finished(tmp_path / "missing") == set()
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(InputError, match=r"no records; name a folder"):
            read(folder)


def test_an_incomplete_record_is_refused_before_it_is_written(tmp_path):
    with pytest.raises(InputError, match="lacks test, diverged"):
        append(tmp_path, {name: None for name in FIELDS if name not in ("test", "diverged")})
    assert not list(tmp_path.iterdir())


def test_a_trial_recorded_twice_counts_once(tmp_path):
    for test in (0.1, 0.2):
        append(tmp_path, record("a", test=test))
    assert [r["test"] for r in read(tmp_path)] == [0.2]


@pytest.mark.long
def test_two_processes_lose_no_line(tmp_path):
    processes = [multiprocessing.get_context("spawn").Process(target=append_many, args=(tmp_path, name)) for name in "ab"]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert finished(tmp_path) == {f"{name}{number}" for name in "ab" for number in range(20)}


def test_append_waits_for_whoever_is_writing(tmp_path):
    writer = threading.Thread(target=append, args=(tmp_path, record("a")))
    with FileLock(tmp_path / "results.jsonl.lock"):
        writer.start()
        writer.join(0.2)
        assert writer.is_alive()
        assert finished(tmp_path) == set()
    writer.join(60)
    assert finished(tmp_path) == {"a"}


def test_a_trial_id_is_file_safe_and_readable():
    assert re.fullmatch(r"domains-gradient_credit-router_start-True-s3-[0-9a-f]{8}", trial_id(**ARGUMENTS))
    assert re.fullmatch(r"[\w-]+", trial_id(**ARGUMENTS | {"task": "folder:/a b/../ü*?", "policy": "../x" * 99}))
    assert len(trial_id(**ARGUMENTS | {"policy": "p" * 500})) < 120


@pytest.mark.parametrize("name", list(ARGUMENTS))
def test_a_trial_id_differs_with_every_argument(name):
    other = {"config": {"kd_weight": 0.5}, "updates": 11, "reward_labels": 65, "seed": 4}.get(name, "other")
    assert trial_id(**ARGUMENTS | {name: other}) != trial_id(**ARGUMENTS)


def test_a_trial_id_depends_neither_on_key_order_nor_on_the_command():
    config = {"nested": {"a": None, "b": (1, 2)}, "kd_weight": 1.0, "command": "kd-env run --seeds 0-9"}
    assert trial_id(**ARGUMENTS | {"config": config}) == trial_id(**ARGUMENTS)


def test_several_records_are_appended_at_once(tmp_path):
    append(tmp_path, record("a"), record("b"))
    assert [each["trial"] for each in read(tmp_path)] == ["a", "b"]
    incomplete = {name: value for name, value in record("d").items() if name != "seed"}
    with pytest.raises(InputError, match="the record lacks seed"):
        append(tmp_path, record("c"), incomplete)
    assert finished(tmp_path) == {"a", "b"}, "all or none"


def test_what_others_append_is_read_once(tmp_path):
    trials = FinishedTrials(tmp_path)
    assert trials.update() == set()
    append(tmp_path, record("a"))
    assert trials.update() == {"a"}
    with (tmp_path / "results.jsonl").open("ab") as file:
        file.write(b'{"trial": "to')  # another process is killed while it writes
    assert trials.update() == {"a"}
    append(tmp_path, record("b"))
    text = (tmp_path / "results.jsonl").read_text()
    (tmp_path / "results.jsonl").write_text("x" * text.index("\n") + text[text.index("\n") :])
    assert trials.update() == {"a", "b"}, "the first line is not read again"
