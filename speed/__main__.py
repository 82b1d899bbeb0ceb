"""Print the table of all benchmarks: ``python -m speed [--json FILE] [--gpu-report DIR] [--device auto|cpu|cuda] [--quick]``."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

from kd_env.errors import InputError
from kd_env.models.device import pick_device
from kd_env.randomness import make_reproducible
from speed import banks, gpu_report, libraries, policies, populations, shares, startup, table, updates
from speed.measure import Row

QUICK = "only digits, fewer turns, a smaller bank"


def main() -> int:
    """Measure and print; return 0, 2 for bad input, or the exit status of the tests."""
    parser = argparse.ArgumentParser(prog="python -m speed", description="Ratios measured side by side in one run.")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows to this file")
    parser.add_argument("--gpu-report", type=Path, metavar="DIR", help=gpu_report.HELP)
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--quick", action="store_true", help=QUICK)
    arguments = parser.parse_args()
    try:
        device = gpu_report.require_device(arguments.device) if arguments.gpu_report else pick_device(arguments.device)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    make_reproducible()  # as in trials
    started = time.perf_counter()

    def effort(full: int, quick: int) -> int:
        return quick if arguments.quick else full

    sections: dict[str, Callable[[], list[Row]]] = {
        "the core, digits": lambda: updates.core("digits", device, effort(40, 5), count=20),
        "the core, domains": lambda: updates.core("domains", device, 30, count=4),
        "the Gym view, digits": lambda: updates.view("digits", device, effort(30, 7), count=10),
        "the Gym view, domains": lambda: updates.view("domains", device, 5, count=10),
        "populations, digits": lambda: populations.against_separate_runs("digits", device, (8, 32, 64), effort(7, 3), effort(20, 10)),
        "populations, domains": lambda: populations.against_separate_runs("domains", device, (16,), 5, count=4),
        "learned policies in a population": lambda: policies.in_a_population(
            "digits", device, ("reinforce", "gradient_credit", "crossfit_credit"), 16, effort(3, 2), effort(64, 16)
        ),
        "policies": lambda: policies.learned_policies("digits", device, effort(7, 2), count=effort(64, 32)),
        "whole runs, digits": lambda: policies.against_plain_loop("digits", device, effort(7, 2), count=effort(64, 32)),
        "whole runs, domains": lambda: policies.against_plain_loop("domains", device, 3, count=48),
        "Stable-Baselines3": lambda: libraries.stable_baselines3("digits", device, effort(7, 2), count=effort(128, 32)),
        "Transformers teachers": lambda: libraries.transformers_bank(effort(5, 2), effort(4000, 500)),
        "the start": lambda: startup.commands(effort(9, 2)),
        "the first update": lambda: startup.first_update(effort(67_000, 2_000), effort(3, 1)),
        "the bank": lambda: banks.bank(effort(1_000_000, 600_000), effort(7, 2)),
        "where a step goes": lambda: shares.step("digits", effort(10, 4)),
    }
    if arguments.quick:
        sections = {name: measure for name, measure in sections.items() if "domains" not in name}
    status, summary = 0, ""
    if arguments.gpu_report:
        for name in ("the bank", "where a step goes", "Transformers teachers", "the start", "the first update"):
            del sections[name]  # these do not use the device
        status, summary = gpu_report.run_tests(arguments.gpu_report)
    rows: list[Row] = []
    for name, measure in sections.items():
        print(f"measuring {name} ...", file=sys.stderr, flush=True)
        rows += measure()
        seconds = time.perf_counter() - started
        if arguments.json:
            table.save(rows, arguments.json, device, seconds)
        if arguments.gpu_report:  # after each section, since the time on a GPU may end
            page = gpu_report.write(arguments.gpu_report, summary, rows, device, seconds)
    print(table.markdown(rows))
    print(f"\nOn {device}, one thread, {seconds:.0f} s. Values are CPU time; on CUDA, wall time.", end=" ")
    print("A ratio is the median over turns of value / baseline.")
    if arguments.gpu_report:
        print(page)
    return status


if __name__ == "__main__":
    sys.exit(main())
