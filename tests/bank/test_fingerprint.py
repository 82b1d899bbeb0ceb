"""What identifies a bank and its files."""

import numpy as np
from known_teachers import ATTENTION, LAYERS, Linear, image_task, make_pool

from kd_env.bank.fingerprint import describe, fingerprint


def test_the_fingerprint_follows_task_teachers_and_settings():
    task, pool = image_task(), make_pool()
    others = [
        fingerprint(image_task(shift=1.0), pool),
        fingerprint(task, make_pool(Linear("one", 1, 2))),
        fingerprint(task, make_pool(Linear("two", 2, 5), Linear("one", 1, 2))),
        fingerprint(task, make_pool(Linear("one", 3, 2), Linear("two", 2, 5))),
        fingerprint(task, pool, keep=LAYERS),
        fingerprint(task, pool, keep=LAYERS | ATTENTION),
        fingerprint(task, pool, half=True),
    ]
    assert len({fingerprint(task, pool), *others}) == 8
    assert fingerprint(image_task("another name"), make_pool()) == fingerprint(task, pool)


def test_a_small_file_is_read_whole(tmp_path):
    file = tmp_path / "file"
    content = np.random.default_rng(0).bytes(100_000)
    file.write_bytes(content)
    before = describe(file)
    assert before["bytes"] == 100_000
    for position in (0, 70_000, 99_999):
        changed = bytearray(content)
        changed[position] ^= 1
        file.write_bytes(changed)
        assert describe(file)["checksum"] != before["checksum"]


def test_a_large_file_is_sampled_from_its_first_to_its_last_byte(tmp_path):
    file = tmp_path / "file"
    content = bytearray(20 << 20)
    file.write_bytes(content)
    before = describe(file)
    for position in (0, len(content) - 1):
        content[position] ^= 1
        file.write_bytes(content)
        assert describe(file)["checksum"] != before["checksum"]
        content[position] ^= 1
