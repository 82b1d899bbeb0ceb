"""Write a report of a GPU: the tests that need one, and the table of all benchmarks. In: rows. Out: ``speed.json`` and ``speed.md``."""

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
    "run the tests that need CUDA and the whole table, and write speed.json and speed.md into this folder; it needs a CUDA device, or "
    "--device cpu to try the command without one"
)
TESTS = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "cuda", "tests")


def require_device(name: str) -> torch.device:
    """Return the device, which is CUDA unless ``cpu`` is named.

    Raises:
        InputError: there is no CUDA device.
    """
    return pick_device("cuda" if name == "auto" else name)


def write(directory: Path, rows: Sequence[Row], device: torch.device, seconds: float) -> int:
    """Run the tests that need CUDA, write both files, print the path of ``speed.md`` and return the exit status of the tests."""
    print("running the tests that need CUDA ...", file=sys.stderr, flush=True)
    tests = subprocess.run(TESTS, capture_output=True, text=True, check=False)
    summary = (tests.stdout.strip().splitlines() or [tests.stderr.strip()])[-1]
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    directory.mkdir(parents=True, exist_ok=True)
    table.save(rows, directory / "speed.json", device, seconds)
    packages = ", ".join(f"{package} {version}" for package, version in versions().items())
    heading = f"# Speed on {name}\n\nMade by `python -m speed --gpu-report`, {seconds:.0f} s. {packages}.\n\n"
    (directory / "speed.md").write_text(f"{heading}Tests that need CUDA: {summary}\n\n{table.markdown(rows)}\n")
    print(directory / "speed.md")
    return tests.returncode
