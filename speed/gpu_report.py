"""Write a report of a GPU: the tests that need one, and the benchmarks. In: rows. Out: ``speed.json``, ``speed.md``, ``tests.txt``."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from kd_env.benchmark.versions import versions
from kd_env.models.device import pick_device
from speed import table
from speed.measure import Row

HELP = (
    "run the tests that need CUDA and all benchmarks that use the device, and write speed.json, speed.md and tests.txt into this "
    "folder; it needs a CUDA device, or --device cpu to try the command without one"
)
TESTS = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "auto", "-m", "cuda", "tests")


def require_device(name: str) -> torch.device:
    """Return the device, which is CUDA unless ``cpu`` is named.

    Raises:
        InputError: there is no CUDA device.
    """
    return pick_device("cuda" if name == "auto" else name)


def run_tests(directory: Path) -> tuple[int, str]:
    """Run the tests that need CUDA, and write what they print to ``tests.txt``; return their exit status and the last line."""
    print("running the tests that need CUDA ...", file=sys.stderr, flush=True)
    tests = subprocess.run(TESTS, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "tests.txt").write_text(tests.stdout)
    return tests.returncode, (tests.stdout.strip().splitlines() or ["no output"])[-1]


def write(directory: Path, summary: str, rows: Sequence[Row], device: torch.device, seconds: float) -> Path:
    """Write ``speed.json`` and ``speed.md``, with the ``summary`` of the tests, and return the path of ``speed.md``."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    table.save(rows, directory / "speed.json", device, seconds)
    packages = ", ".join(f"{package} {version}" for package, version in versions().items())
    heading = f"# Speed on {name}\n\nMade by `python -m speed --gpu-report`, {seconds:.0f} s. {packages}.\n\n"
    page = directory / "speed.md"
    page.write_text(f"{heading}Tests that need CUDA: {summary}\n\n{table.markdown(rows)}\n")
    return page
