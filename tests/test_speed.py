"""Every section of the speed table ends and has numbers; the numbers themselves depend on the machine."""

import math
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent.parent))  # the benchmarks are not part of the package

from speed import __main__, banks, executors, gpu_report, libraries, maps, policies, populations, scaling, shares, startup, table, updates
from speed.measure import Row

CPU = torch.device("cpu")
SECTIONS = {
    "core": lambda: updates.core("digits", CPU, 1, count=2),
    "view": lambda: updates.view("digits", CPU, 1, count=2),
    "populations": lambda: populations.against_separate_runs("digits", CPU, (2, 3), 1, count=2),
    "learned policies in a population": lambda: policies.in_a_population("digits", CPU, ("reinforce",), 2, 1, count=4),
    "learned policies": lambda: policies.learned_policies("digits", CPU, 1, count=16),
    "whole runs": lambda: policies.against_plain_loop("digits", CPU, 1, count=4),
    "bank": lambda: banks.bank(20_000, 1),
    "shares": lambda: shares.step("digits", 1),
    "Stable-Baselines3": lambda: libraries.stable_baselines3("digits", CPU, 1, count=16),
    "Transformers teachers": lambda: libraries.transformers_bank(1, 300),
    "start": lambda: startup.commands(1),
    "maps": lambda: maps.maps(1, batch_size=4, side=8),
}


@pytest.mark.parametrize("module", [maps, scaling, executors])
def test_counts_below_1_are_refused(module, monkeypatch, capsys):
    option = "--trials" if module is executors else "--turns"
    monkeypatch.setattr(sys, "argv", [module.__name__, option, "0"])
    with pytest.raises(SystemExit):
        module.main()
    assert f"argument {option}: 0: expected a whole number of at least 1" in capsys.readouterr().err


@pytest.mark.long
@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name == "whole runs")) for name in SECTIONS])
def test_a_section_ends_and_its_rows_have_numbers(name):
    rows = SECTIONS[name]()
    assert len(rows) > 1
    assert all(math.isfinite(row.value) and row.value >= 0 for row in rows)
    assert all(row.ratio is None or (row.low <= row.ratio <= row.high and row.baseline) for row in rows)
    assert any(row.ratio is not None for row in rows)
    assert all(row.what in table.markdown(rows) for row in rows)


@pytest.mark.long
def test_the_first_update_is_timed_with_a_bank_that_is_there():
    (row,) = startup.first_update(500, 1)
    assert 0.0 < row.value < math.inf
    assert row.ratio is None


@pytest.mark.long
def test_times_and_sizes_of_all_quantities_are_measured(monkeypatch):
    smallest = {title: (name, values[:2]) for title, (name, values) in scaling.VARIED.items()}
    monkeypatch.setattr(scaling, "VARIED", smallest)
    measured = pd.DataFrame(scaling.measure(turns=1))
    assert (measured["measured"] > 0.0).all()
    assert len(measured) == 2 * (2 * len(smallest) - 1)  # updates without and with credit, and banks
    banks_only = measured[measured["what"] == scaling.BANK]
    assert 0.5 < scaling.growth(banks_only) < 1.0  # a part of a bank does not grow
    assert scaling.markdown(measured).count("\n") == 2 * len(smallest)
    assert len(scaling.figure(measured).axes) == len(smallest)


def test_growth_is_the_exponent_between_the_last_two_values():
    quadratic = pd.DataFrame({"value": [8, 1, 2], "measured": [64.0, 5.0, 4.0]})
    assert scaling.growth(quadratic) == pytest.approx(2.0)


@pytest.mark.long
def test_every_part_of_a_step_is_measured():
    assert all(row.value > 0.0 for row in shares.step("digits", 1))


def test_the_report_of_a_gpu_has_the_tests_and_the_table(tmp_path, monkeypatch, capsys):
    rows = [Row("The core", "plain PyTorch loop", "ms/update", 0.6)]
    monkeypatch.setattr(updates, "core", lambda *_, **__: rows)
    for module, name in ((updates, "view"), (populations, "against_separate_runs"), (policies, "learned_policies")):
        monkeypatch.setattr(module, name, lambda *_, **__: [])
    for module, name in ((policies, "against_plain_loop"), (policies, "in_a_population"), (libraries, "stable_baselines3")):
        monkeypatch.setattr(module, name, lambda *_, **__: [])
    ended = subprocess.CompletedProcess((), 0, "....\n4 passed in 9.00s\n", "")
    monkeypatch.setattr(gpu_report.subprocess, "run", lambda *_, **__: ended)
    monkeypatch.setattr("sys.argv", ["speed", "--gpu-report", str(tmp_path / "gpu"), "--device", "cpu"])
    assert __main__.main() == 0
    page = (tmp_path / "gpu" / "speed.md").read_text()
    assert "# Speed on cpu" in page
    assert "Tests that need CUDA: 4 passed" in page
    assert "plain PyTorch loop" in page
    assert '"device": "cpu"' in (tmp_path / "gpu" / "speed.json").read_text()
    assert capsys.readouterr().out.strip().endswith("speed.md")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_the_report_of_a_gpu_needs_one(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["speed", "--gpu-report", str(tmp_path / "gpu")])
    assert __main__.main() == 2
    assert "device='cuda' is not available here" in capsys.readouterr().err
    assert not (tmp_path / "gpu").exists()
