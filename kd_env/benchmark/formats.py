"""Write a student's checkpoint in other formats and score each of them. In: the folder of the checkpoint. Out: files in it.

- ``onnx``: ``model.onnx``, which gives the outputs of the checkpoint in ONNX Runtime.
- ``float16``, ``bfloat16``: the checkpoint's weights in that format.
- ``int8``: ``model_int8.onnx``, with weights in int8 (dynamic quantisation).

The layers of a quantised student (``bits=4``) are integer operators in ``model.onnx`` already; ``model_int8.onnx`` is a copy of it.

Formats that exist are not written again. A section of the model card contains the score, the size and the latency of each format.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open

from kd_env.benchmark.latency import RUNS, longest_example, median_milliseconds
from kd_env.benchmark.report_text import NO_VALUE, number
from kd_env.errors import InputError
from kd_env.models import onnx_export
from kd_env.models.convolutional import ConvolutionalNetwork
from kd_env.models.convolutional.checkpoint import ConvolutionalCheckpoint
from kd_env.models.low_bit import is_low_bit
from kd_env.models.pretrained import Checkpoint, open_checkpoint
from kd_env.models.saving import TransformersNetwork, save_weights
from kd_env.randomness import reproducible
from kd_env.spec import one_of
from kd_env.tasks import Task
from kd_env.types import Inputs

DTYPES = ("float32", "float16", "bfloat16", "int8")
ROUNDED = ("float16", "bfloat16")
HEADING = "## Other formats"
FILE = "formats.json"
WEIGHTS = "model.safetensors"
NUM_CELLS = 4
"""Cells of a format in :data:`FILE`: score, size in MB, largest difference of a logit, milliseconds. Older files lack the last ones."""


def check(export: str, dtype: str) -> None:
    """Check the options ``export`` and ``dtype``.

    Raises:
        InputError: a value is unknown, or a package that it needs is not installed.
    """
    if export:
        one_of("distill", "onnx", export=export)
    if dtype:
        one_of("distill", *DTYPES, dtype=dtype)
    if export or dtype == "int8":
        onnx_export.require_packages()


def write_formats(folder: Path, task: Task, export: str = "", dtype: str = "") -> list[str]:
    """Write formats of a checkpoint into ``folder``, and return a line with the score of each format there.

    Args:
        folder: folder of the checkpoint.
        task: the task. Formats are scored on its test split, or on validation if it has none.
        export: ``onnx``, or empty.
        dtype: number format of the weights; empty: as they are.

    Raises:
        InputError: an option is unknown, a package is missing, the weights are rounded already, or the exported outputs differ.
    """
    check(export, dtype)
    if not export and not dtype:
        return []
    stored = _number_format(folder / WEIGHTS)
    if dtype == "float32" and stored != "float32":
        raise InputError(f"--dtype float32: the weights in {folder} are rounded to {stored} already; name a new --out")
    if not export and dtype == "float32":
        return []
    rows: dict[str, list[str]] = {}  # cells of the table by format
    if (folder / FILE).exists():
        rows = {name: cells + [NO_VALUE] * (NUM_CELLS - len(cells)) for name, cells in json.loads((folder / FILE).read_text()).items()}
    checkpoint, split = open_checkpoint(str(folder), task), task.validation if task.test is None else task.test
    low_bit = is_low_bit(_model(checkpoint))
    if low_bit and dtype in ROUNDED:
        raise rounds_again(f"student in {folder}", dtype)
    with reproducible():
        inputs: Inputs = dict(checkpoint.reader()(split.inputs))
        logits = _logits(checkpoint, inputs)
        onnx_file, int8_file, weights_file = folder / "model.onnx", folder / "model_int8.onnx", folder / WEIGHTS
        example = longest_example(inputs)

        def row(file: Path, file_logits: np.ndarray, difference: str, run: Callable[[Inputs], object]) -> list[str]:
            """Return the score of a file, its size in MB, its largest difference of a logit, and the time of ``run`` for one example."""
            milliseconds = median_milliseconds(lambda: run(example))
            score, size = number(task.score(file_logits.argmax(1), split.labels)), f"{file.stat().st_size / 1e6:.1f}"
            return [score, size, difference, f"{milliseconds:.2f}"]

        if "float32" not in rows and stored == "float32":
            rows["float32"] = row(weights_file, logits, NO_VALUE, _runner(_model(checkpoint)))
        if (export or dtype == "int8") and "onnx" not in rows:
            difference = onnx_export.export(onnx_file, _model(checkpoint), inputs)
            onnx_logits = onnx_export.predict(onnx_file, inputs)
            if low_bit:  # a few examples differ more than those that the export checks
                difference = float(np.abs(onnx_logits - logits).max())
            rows["onnx"] = row(onnx_file, onnx_logits, f"{difference:.1g}", onnx_export.runner(onnx_file))
        if dtype == "int8" and dtype not in rows:
            if low_bit:
                shutil.copyfile(onnx_file, int8_file)
            else:
                onnx_export.quantize(onnx_file, int8_file)
            quantized_logits = onnx_export.predict(int8_file, inputs)
            rows[dtype] = row(int8_file, quantized_logits, _largest_difference(quantized_logits, logits), onnx_export.runner(int8_file))
        elif dtype in ROUNDED and dtype not in rows:
            if stored not in ("float32", dtype):
                raise InputError(f"--dtype {dtype}: the weights in {folder} are rounded to {stored} already; name a new --out")
            rounded = _model(checkpoint).to(getattr(torch, dtype))
            if stored == "float32":
                (folder / FILE).write_text(json.dumps(rows, indent=1) + "\n")  # before the only weights change
                _replace_weights(folder, rounded)
            rounded_logits = _logits(open_checkpoint(str(folder), task), inputs)
            # after a stop between these lines, the unrounded weights are gone
            largest = _largest_difference(rounded_logits, logits) if stored == "float32" else NO_VALUE
            rows[dtype] = row(weights_file, rounded_logits, largest, _runner(rounded))
    (folder / FILE).write_text(json.dumps(rows, indent=1) + "\n")
    _write_section(folder / "README.md", task, rows)
    return [f"{name}: {task.metric} {cells[0]}, {cells[1]} MB, {cells[3]} ms" for name, cells in rows.items()]


def rounds_again(student: str, dtype: str) -> InputError:
    """Return the error for a quantised student whose weights would be rounded to ``dtype``."""
    return InputError(f"--dtype {dtype}: the {student} is quantised already; leave the option out, or use --dtype int8")


def _number_format(weights: Path) -> str:
    """Return the number format in which a safetensors file holds floating-point weights."""
    with safe_open(weights, "pt") as file:
        types = {file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118
    return next((name for name, code in (("float16", "F16"), ("bfloat16", "BF16")) if code in types), "float32")


def _replace_weights(folder: Path, model: torch.nn.Module) -> None:
    """Write weights in place of earlier ones, each file completely or not at all."""
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        shutil.copy2(folder / "config.json", temporary)
        save_weights(Path(temporary), model)
        for file in Path(temporary).iterdir():
            file.replace(folder / file.name)


def _model(checkpoint: Checkpoint | ConvolutionalCheckpoint) -> torch.nn.Module:
    network = checkpoint.classifier()
    if isinstance(network, ConvolutionalNetwork):
        return network
    if not isinstance(network, TransformersNetwork):
        raise InputError(f"{checkpoint.folder}: not a student that this package saved; export it with its own tools")
    return network.model.eval()


@torch.no_grad()
def _logits(checkpoint: Checkpoint | ConvolutionalCheckpoint, inputs: Inputs, batch: int = 64) -> np.ndarray:
    """Return the logits ``[N, C]`` of a checkpoint. Its weights are loaded as float32."""
    model, size = _model(checkpoint), len(next(iter(inputs.values())))
    parts = [model(**{name: tensor[start : start + batch] for name, tensor in inputs.items()}).logits for start in range(0, size, batch)]
    return torch.cat(parts).numpy()


def _runner(model: torch.nn.Module) -> Callable[[Inputs], object]:
    """Return a function that runs ``model`` in its own number format."""
    dtype = next(model.parameters()).dtype

    @torch.no_grad()
    def run(inputs: Inputs) -> object:
        return model(**{name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in inputs.items()})

    return run


def _largest_difference(logits: np.ndarray, reference: np.ndarray) -> str:
    return f"{np.abs(logits - reference).max():.1g}"


def _write_section(card: Path, task: Task, rows: dict[str, list[str]]) -> None:
    """Write the table of formats at the end of the model card, in place of an earlier one."""
    split = "validation" if task.test is None else "test"
    files = {"onnx": "model.onnx", "int8": "model_int8.onnx"}
    if not rows.keys().isdisjoint(ROUNDED):
        files["float32"] = "replaced by the rounded weights"
    lines = [f"| {name} | {files.get(name, WEIGHTS)} | {' | '.join(cells)} |" for name, cells in rows.items()]
    head = f"| format | file | {split} {task.metric} | MB | largest difference of a logit | ms per example |"
    example = "the longest text" if task.kind == "text" else "an image"
    note = (
        f"Milliseconds are medians of {RUNS} runs on {example} of {split} alone, without {_READERS[task.kind]}, on one thread of the CPU "
        "of the machine that wrote this table: torch runs `model.safetensors` in the format of its row, ONNX Runtime the other files."
    )
    before = card.read_text().partition(f"\n{HEADING}\n")[0].rstrip()
    card.write_text("\n".join([before, "", HEADING, "", head, "| --- | --- | --- | --- | --- | --- |", *lines, "", note]) + "\n")


_READERS = {"text": "the tokenizer", "image": "reading the image"}
"""What is not timed, by kind of task."""
