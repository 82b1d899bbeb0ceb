"""A disk that fills at random sizes: a message with the path, and with more space the same command ends in the same results."""

import os
import random
import subprocess

import pytest
from processes import content, errors_of, start

SIZES = int(os.environ.get("KD_ENV_DISKS", "8"))
COMMAND = "run --task digits --policy reinforce --seeds 0-1 --updates 100 --set batch_size=8 --student mlp(width=16) --workers 1 --no-test"


@pytest.fixture
def disk(tmp_path):
    """A small disk in memory, and a function that changes its size."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("only root may mount a small disk")

    def resize(kilobytes):
        subprocess.run(["mount", "-o", f"remount,size={kilobytes}k", str(place)], check=True)

    yield place, resize
    subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_full_disk_loses_nothing(disk, own_data, tmp_path, capsys):
    place, resize = disk
    rng, statuses, out = random.Random(0), [], place / "out"
    whole = start(f"{COMMAND} --checkpoint-minutes 0.001", own_data, tmp_path / "whole")
    whole.join()
    assert whole.exitcode == 0, errors_of(tmp_path / "whole")
    expected = content(tmp_path / "whole")
    errors = place.parent / "full.err"  # not on the full disk
    for _ in range(SIZES):
        for kilobytes in (round(10 ** rng.uniform(0.6, 2.5)), 50_000):
            resize(kilobytes)
            process = start(f"{COMMAND} --checkpoint-minutes 0.001", own_data, out, errors)
            process.join()
            text = errors.read_text()
            assert "Traceback" not in text
            full = process.exitcode == 2 and kilobytes < 50_000 and text.splitlines()[-1].startswith("kd-env: ") and f"{place}" in text
            assert process.exitcode == 0 or full, text
            statuses.append(process.exitcode)
        assert content(out) == expected
        subprocess.run(["rm", "-r", str(out)], check=True)
    assert statuses.count(2) >= SIZES / 2, "most of these sizes are too small for the results"
    with capsys.disabled():
        print(f"\n{SIZES} sizes: {statuses.count(2)} times full with a message, all equal with more space")
