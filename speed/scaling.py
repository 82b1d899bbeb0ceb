"""Measure how the time of an update and the size of a bank grow: ``python -m speed.scaling [--turns N]``.

It writes ``docs/figures/scaling.csv`` and ``scaling.png``, and prints the table of ``docs/speed.md``. One quantity is varied at a time, on
random examples and random teachers: what is measured does not depend on them.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pandas as pd
import torch
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, StrMethodFormatter

import kd_env  # noqa: F401  (registers the ids)
from kd_env.analysis.canvas import FAINT, FONT, REFERENCE, blank_figure
from kd_env.analysis.palette import COLOURS
from kd_env.bank import open_bank
from kd_env.teachers.own import as_pool
from speed.measure import Subject, at_least_one, compare
from speed.random_data import Sizes, random_task, random_teachers

FILE = Path(__file__).parents[1] / "docs" / "figures" / "scaling.csv"
STEP, CREDIT, BANK = "an update", "an update with credit=first_order", "a bank"
LINES = (STEP, CREDIT, BANK)
COUNT = 4
"""Number of updates in a block."""


VARIED: dict[str, tuple[str, tuple[int, ...]]] = {
    "examples in a mini-batch, B": ("batch_size", (8, 32, 128, 512)),
    "teachers, K": ("teachers", (2, 8, 32, 128)),
    "students, S": ("students", (1, 4, 16, 64)),
    "classes, C": ("classes", (4, 16, 64, 256, 1024)),
    "words in a text": ("words", (8, 16, 32, 64, 128)),
    "examples in a bank, N": ("examples", (1_000, 4_000, 16_000, 64_000)),
}
"""What is varied: its title, the name in :class:`Sizes`, and its values."""


def main() -> None:
    """Measure, write and print."""
    parser = argparse.ArgumentParser(prog="python -m speed.scaling", description="How times and sizes grow.")
    parser.add_argument("--turns", type=at_least_one, default=7)
    turns = parser.parse_args().turns
    torch.set_num_threads(1)
    pd.DataFrame(measure(turns)).to_csv(FILE, index=False, float_format="%.4g")
    table = pd.read_csv(FILE)
    figure(table).savefig(FILE.with_suffix(".png"), dpi=150)
    print(markdown(table))


def measure(turns: int) -> Iterator[dict[str, Any]]:
    """Measure all that is varied, and yield a row for each value."""
    for title, (name, values) in VARIED.items():
        print(f"measuring {title} ...", file=sys.stderr, flush=True)
        yield from bank_sizes(title, values) if name == "examples" else update_times(title, name, values, turns)


def update_times(title: str, name: str, values: Sequence[int], turns: int) -> Iterator[dict[str, Any]]:
    """Time updates for all ``values`` of a size, side by side; yield rows in milliseconds."""
    with tempfile.TemporaryDirectory(prefix="kd-env-speed-") as folder:
        for what, credit in ((STEP, "shared"), (CREDIT, "first_order")):
            subjects = [Subject(str(value), _steps(_with(name, value), Path(folder) / str(value), credit), COUNT) for value in values]
            for value, row in zip(values, compare(title, subjects, "ms", turns), strict=True):
                yield {"quantity": title, "what": what, "value": value, "measured": row.value, "unit": "ms"}


def bank_sizes(title: str, values: Sequence[int]) -> Iterator[dict[str, Any]]:
    """Build banks of several sizes; yield rows in megabytes."""
    for value in values:
        task = random_task(_with("examples", value))
        with tempfile.TemporaryDirectory(prefix="kd-env-speed-") as folder:
            open_bank(task, as_pool("own", random_teachers(Sizes()), task.development()), Path(folder) / "bank")
            size = sum(path.stat().st_size for path in (Path(folder) / "bank").iterdir()) / 1e6
        yield {"quantity": title, "what": BANK, "value": value, "measured": size, "unit": "MB"}


def growth(rows: pd.DataFrame) -> float:
    """Return the exponent between the last two values: 1 where twice as much takes twice as long, 0 where it takes no longer."""
    last = np.log(rows.sort_values("value")[["value", "measured"]].to_numpy()[-2:])
    exponent: float = (last[1, 1] - last[0, 1]) / (last[1, 0] - last[0, 0])
    return exponent


def markdown(table: pd.DataFrame) -> str:
    """Return a table with a line for each quantity and measurement."""
    lines = ["| what | varied | from | to | measured | growth at the end |", "| --- | --- | ---: | ---: | ---: | ---: |"]
    for (quantity, what), rows in table.groupby(["quantity", "what"], sort=False):
        low, high, unit = rows["measured"].iloc[0], rows["measured"].iloc[-1], rows["unit"].iloc[0]
        values = f"{rows['value'].iloc[0]:,} | {rows['value'].iloc[-1]:,}"
        lines.append(f"| {what} | {quantity} | {values} | {low:.3g} to {high:.3g} {unit} | {growth(rows):.2f} |")
    return "\n".join(lines)


def figure(table: pd.DataFrame) -> Any:
    """Draw one panel per quantity with logarithmic axes, and for each line a dashed one that grows linearly to its last value."""
    drawn = blank_figure(9.0, 5.2)
    for number, (quantity, of_quantity) in enumerate(table.groupby("quantity", sort=False), start=1):
        panel = drawn.add_subplot(2, 3, number, xscale="log", yscale="log")
        for what, rows in of_quantity.groupby("what", sort=False):
            values, measured = rows["value"].to_numpy(), rows["measured"].to_numpy()
            panel.plot(values, measured, "o-", markersize=3.5, linewidth=1.4, color=COLOURS[LINES.index(what)])
            panel.plot(values, measured[-1] * values / values[-1], **REFERENCE)
        panel.set_ylim(bottom=0.6 * of_quantity["measured"].min())
        panel.set_xticks(values, [f"{value:,}" for value in values])
        panel.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        panel.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        panel.minorticks_off()
        panel.set_ylabel(of_quantity["unit"].iloc[0], fontsize=FONT)
        panel.set_title(quantity, fontsize=FONT + 0.5, loc="left")
        panel.tick_params(labelsize=FONT, color=FAINT)
        panel.spines[["top", "right"]].set_visible(False)
    keys = [Line2D([], [], color=COLOURS[number], marker="o", markersize=3.5, label=what) for number, what in enumerate(LINES)]
    keys.append(Line2D([], [], label="linear", **REFERENCE))
    drawn.legend(handles=keys, frameon=False, fontsize=FONT, loc="upper center", ncols=len(keys))
    drawn.tight_layout(rect=(0.0, 0.0, 1.0, 0.95))
    return drawn


def _with(name: str, value: int) -> Sizes:
    return dataclasses.replace(Sizes(), **{name: value})


def _steps(sizes: Sizes, bank: Path, credit: str) -> Callable[[], object]:
    """Return a function that teaches :data:`COUNT` mini-batches."""
    env: Any = gym.make_vec(
        "kd_env/TeacherSelection-v0",
        num_envs=sizes.batch_size * sizes.students,
        num_students=sizes.students,
        vectorization_mode="vector_entry_point",
        task=random_task(sizes),
        teachers=random_teachers(sizes),
        bank=bank,
        action="weights",
        updates=10**9,
        reward_every=0,
        validation_every=10**9,
        credit=credit,
        device="cpu",
    )
    env.reset(seed=0)
    action = np.zeros(env.action_space.shape, np.float32)
    return lambda: [env.step(action) for _ in range(COUNT)]


if __name__ == "__main__":
    main()
