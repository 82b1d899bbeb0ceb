"""Draw the episode so far. In: the selection and the reward of each update. Out: a picture, or the same as text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from kd_env.printable import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from kd_env.envs.selection import Selection
    from kd_env.envs.step import Step

MAX_BINS = 512  # largest number of bins in a history; even, because full bins merge in pairs
MAX_MAGNITUDE = 1e100  # larger numbers count as missing, like NaN, because their sums could overflow
HEIGHT, WIDTH, FONT_SIZE = 480, 640, 7.5  # of the picture: pixels, pixels, points
NAME_LENGTH, BAR_LENGTH = 18, 46  # of the text: characters
SELECTION, REWARD, VALIDATION, GREY = "#0072B2", "#D55E00", "#009E73", "#707070"  # after Okabe and Ito: distinct for colour-blind readers


def begin(selection: Selection, student: int = 0) -> History:
    """Return an empty history for one student, with a label for each teacher and knowledge type that the action selects."""
    kind = selection.action_kind
    teachers = selection.pool.names if kind.decides_teachers else ()
    knowledge = selection.layout.knowledge if kind.decides_knowledge else ()
    history = History((*teachers, *knowledge), selection.settings.distillation.updates)
    history.update = int(selection.distillation.update[student])
    return history


def add(history: History, selection: Selection, step: Step, student: int) -> None:
    """Add the selection, the reward and the validation metric of one student in ``step``."""
    kind, slots = selection.action_kind, slice(*(np.array([student, student + 1]) * selection.num_slots // selection.num_students))
    parts = [step.action.weights[slots].mean(0)] if kind.decides_teachers else []
    if kind.decides_knowledge:
        gates = step.action.gates
        parts.append(np.ones(len(selection.layout.knowledge)) if gates is None else gates[slots].mean(0))
    validation = None if step.validation is None else float(step.validation[student])
    update = int(step.batch.update[student]) + 1
    history.add(update, np.concatenate(parts), float(step.rewards[slots].mean()), validation)


class History:
    """The history of one episode of ``updates`` updates, in constant memory. ``labels`` are the names of teachers and knowledge types."""

    def __init__(self, labels: tuple[str, ...], updates: int) -> None:
        shown = [printable(label) for label in labels]
        self.names = tuple(label if len(label) <= NAME_LENGTH else _shortened(label) for label in shown)
        self.updates, self.update, self.window = updates, 0, max(updates // 50, 1)  # rates and rewards are shown as means over the window
        self.steps, self.validations = Bins(2 + len(labels)), Bins(2)  # columns: update, reward, rates; update, validation
        self.last = self.best = (0, np.nan)  # update, validation

    def add(self, update: int, rates: np.ndarray, reward: float, validation: float | None) -> None:
        """Add update number ``update``, from 1. NaN and infinite values count as missing; a higher ``validation`` is better.

        Args:
            update: number of the update.
            rates: selection rate of each label.
            reward: reward of the update.
            validation: metric on validation, if measured.
        """
        self.update = update
        self.steps.add(np.array([update, reward, *rates], dtype=np.float64))
        if validation is not None and abs(validation) < MAX_MAGNITUDE:
            self.validations.add(np.array([update, validation], dtype=np.float64))
            self.last = (update, validation)
            self.best = self.best if self.best[1] >= validation else self.last


class Bins:
    """Sums of rows in bins of ``size`` consecutive rows. ``size`` doubles when ``MAX_BINS`` bins are full."""

    def __init__(self, columns: int) -> None:
        self.table = np.zeros((2, MAX_BINS, columns))  # sums, and the number of values in each sum
        self.rows, self.size = 0, 1

    def add(self, row: np.ndarray) -> None:
        """Add one row ``[columns]``. A missing value does not enter the mean of its column."""
        if self.rows == MAX_BINS * self.size:
            merged = self.table[:, ::2] + self.table[:, 1::2]
            self.table, self.size = np.append(merged, np.zeros_like(merged), axis=1), 2 * self.size
        valid = np.abs(row) < MAX_MAGNITUDE
        self.table[:, self.rows // self.size] += np.where(valid, row, 0.0), valid
        self.rows += 1

    def means(self, window: int = 1) -> np.ndarray:
        """Return moving means over the last ``window`` rows, in whole bins, ``[bins, columns]``; NaN if all values are missing."""
        used = max(-(-self.rows // self.size), 1)
        width = min(max(window // self.size, 1), used)
        padded = np.pad(self.table[:, :used], ((0, 0), (width - 1, 0), (0, 0)))
        sums, counts = sliding_window_view(padded, width, axis=1).sum(-1)
        return np.asarray(np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0))


def frame(history: History) -> np.ndarray:
    """Return the picture, uint8 ``[HEIGHT, WIDTH, 3]``: a row for each label, the reward, and the validation metric, over updates."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    canvas = FigureCanvasAgg(Figure(figsize=(WIDTH / 100, HEIGHT / 100), dpi=100, facecolor="white"))
    layout = {"left": 0.21, "right": 0.92, "top": 0.95, "bottom": 0.09, "hspace": 0.3, "height_ratios": [2.5, 1, 1]}
    panels = canvas.figure.subplots(3, 1, sharex=True, gridspec_kw=layout, subplot_kw={"xlim": (0, history.updates)})
    updates, smooth, (measured, scores) = history.steps.means()[:, 0], history.steps.means(history.window), history.validations.means().T
    _draw_rates(panels[0], history, updates, smooth[:, 2:])
    panels[1].plot(updates, smooth[:, 1], color=REWARD, linewidth=1.4, marker="o", markersize=4, markevery=[-1])
    panels[1].set_ylim(*_limits(smooth[:, 1]))
    _finish(panels[1], f"reward, mean of {history.window} updates: {_number(smooth[-1, 1])}", smooth[:, 1])
    panels[2].plot(measured, scores, color=VALIDATION, linewidth=1.2, marker="o", markersize=3)
    panels[2].plot(*history.best, color=VALIDATION, marker="o", markersize=8, markerfacecolor="none", clip_on=False)
    _finish(panels[2], f"validation: {_validation(history)}", scores)
    panels[2].set_xlabel(f"update ({history.update} of {history.updates} done)", fontsize=FONT_SIZE + 0.5)
    canvas.draw()  # type: ignore[no-untyped-call]
    return np.array(canvas.buffer_rgba())[:, :, :3]  # type: ignore[no-untyped-call]


def _shortened(label: str) -> str:
    """Return the first and the last characters of a label, with an ellipsis between them."""
    first = NAME_LENGTH // 2
    return f"{label[:first]}…{label[first + 1 - NAME_LENGTH :]}"


def text(history: History) -> str:
    """Return the history as text: one line per label and 4 more, of at most 80 columns, without a newline at the end."""
    smooth, progress = history.steps.means(history.window), f"update {history.update}/{history.updates}"
    lines = [f"{progress:{NAME_LENGTH + 2}} {_bar(history.update / history.updates)}", f"selection, mean of {history.window} updates"]
    for name, rate in zip(history.names, smooth[-1, 2:], strict=True):
        lines.append(f"  {name:{NAME_LENGTH}} {_bar(rate)} {_number(rate, tiny=0.0)}")
    lines.append(f"{'reward ' + _number(smooth[-1, 1]):{NAME_LENGTH + 2}} {_spark(smooth[:, 1])}".rstrip())
    return "\n".join([*lines, f"validation {_validation(history)}"])


def _draw_rates(axes: Axes, history: History, updates: np.ndarray, rates: np.ndarray) -> None:
    """Draw a row for each label. Up to 8 rows are areas; with more rows, which are too low to show a height, they are shades."""
    top = max(np.ceil(10.5 * np.max(rates, initial=0.0, where=np.isfinite(rates))) / 10, 0.1)
    count, half = len(history.names), history.steps.size / 2
    style: dict[str, Any] = {"size": min(FONT_SIZE, 130 / count), "va": "center", "transform": axes.get_yaxis_transform()}
    for floor, name, rate in zip(range(count - 1, -1, -1), history.names, rates.T, strict=True):
        if count > 8:
            edges = np.append(updates - half, updates[-1] + half)
            axes.pcolormesh(edges, [floor + 0.04, floor + 0.96], rate[None], cmap="Blues", vmin=0, vmax=top)
        else:
            axes.fill_between(updates, floor, floor + rate / top, color=SELECTION, alpha=0.3, linewidth=0)
            axes.plot(updates, floor + rate / top, color=SELECTION, linewidth=1.2, marker="o", markersize=4, markevery=[-1])
        axes.axhline(floor, color=GREY, linewidth=0.4)
        axes.text(-0.015, floor + 0.45, name, ha="right", parse_math=False, **style)
        axes.text(1.015, floor + 0.45, _number(rate[-1], tiny=0.0), **style)
    axes.set(ylim=(0, count), yticks=[])
    _finish(axes, f"selection rate, mean of {history.window} updates ({'darkest' if count > 8 else 'height of a row'}: {top:g})", rates)


def _finish(axes: Axes, title: str, values: np.ndarray) -> None:
    axes.set_title(title, fontsize=FONT_SIZE + 1, loc="left", pad=4)
    axes.tick_params(labelsize=FONT_SIZE, length=3)
    axes.locator_params(axis="y", nbins=4)
    axes.spines[["top", "right"]].set_visible(False)
    if not np.isfinite(values).any():
        axes.set_yticks([])
        axes.text(0.5, 0.5, "no data yet", color=GREY, ha="center", va="center", backgroundcolor="white", transform=axes.transAxes)


def _limits(values: np.ndarray) -> tuple[float, float]:
    """Return the range of the values with a margin, without outliers (a student that diverged) that would flatten the rest."""
    finite = values[np.isfinite(values)] if np.isfinite(values).any() else np.zeros(1)
    first, third = np.quantile(finite, (0.25, 0.75))
    near = finite[np.abs(finite - (first + third) / 2) <= (8 * (third - first) or np.inf)]
    margin = 0.08 * np.ptp(near) or 0.05 * abs(near[0]) or 1.0
    return float(near.min() - margin), float(near.max() + margin)


def _number(value: float, tiny: float = 0.001) -> str:
    """Return the number with four decimals, or with three digits if it is below ``tiny`` or large; a dash for NaN."""
    return "–" if np.isnan(value) else f"{value:{'.4f' if value == 0 or tiny <= abs(value) < 1000 else '.3g'}}"


def _validation(history: History) -> str:
    (update, last), (best_update, best) = history.last, history.best
    return f"{_number(last)} at update {update}, best {_number(best)} at update {best_update}" if update else "not measured yet"


def _bar(share: float) -> str:
    eighths = round(8 * BAR_LENGTH * float(np.clip(np.nan_to_num(share), 0, 1)))
    return ("█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8].strip()).ljust(BAR_LENGTH, "·")


def _spark(values: np.ndarray) -> str:
    points, (low, high) = values[np.linspace(0, len(values) - 1, min(BAR_LENGTH, len(values))).astype(int)], _limits(values)
    levels = np.nan_to_num(np.clip(8 * (points - low) / (high - low), 0, 7), nan=-1).astype(int)
    return "".join(" ▁▂▃▄▅▆▇█"[level + 1] for level in levels)
