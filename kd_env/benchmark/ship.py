"""Make a student's checkpoint ready to ship: as ONNX, and in other number formats, each with its score. In: its folder. Out: files in it.

- ``onnx``: ``model.onnx``, with the outputs of the checkpoint in ONNX Runtime.
- ``float16``, ``bfloat16``: the checkpoint's weights in that format.
- ``int8``: ``model_int8.onnx``, with weights in int8 (dynamic quantisation).

What is there already is not made again. A section of the card says how each scores.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

from kd_env.benchmark.report_text import NO_VALUE, number
from kd_env.errors import InputError
from kd_env.models import onnx_export
from kd_env.models.checkpoint_files import quiet
from kd_env.models.encoder import Encoder
from kd_env.models.pretrained import Checkpoint, open_checkpoint
from kd_env.randomness import one_thread
from kd_env.spec import one_of
from kd_env.tasks import Task
from kd_env.types import Inputs

DTYPES = ("float32", "float16", "bfloat16", "int8")
HEADING = "## Other formats"
FILE = "formats.json"


def check(export: str, dtype: str) -> None:
    """Check the two options.

    Raises:
        InputError: a value is unknown, or the packages that it needs are not installed.
    """
    if export:
        one_of("distill", "onnx", export=export)
    one_of("distill", *DTYPES, dtype=dtype)
    if export or dtype == "int8":
        onnx_export.require_packages()


def ship(folder: Path, task: Task, export: str = "", dtype: str = "float32") -> list[str]:
    """Write the formats that are asked for into ``folder``, and return a line for each with its score.

    Args:
        folder: folder of the checkpoint.
        task: task with its test split, on which the formats are scored; validation where it has none.
        export: ``onnx``, or nothing.
        dtype: number format of the weights.

    Raises:
        InputError: an option is unknown, a package is missing, or the exported outputs differ.
    """
    check(export, dtype)
    if not export and dtype == "float32":
        return []
    made: dict[str, list[str]] = {}
    if (folder / FILE).exists():
        made = json.loads((folder / FILE).read_text())
    checkpoint, split = open_checkpoint(str(folder), task), task.validation if task.test is None else task.test
    with one_thread():
        inputs: Inputs = dict(checkpoint.reader()(split.inputs))
        if "float32" not in made:
            made["float32"] = _row(task, split.labels, _logits(checkpoint, inputs), _size(folder / "model.safetensors"), NO_VALUE)
        if (export or dtype == "int8") and "onnx" not in made:
            difference = onnx_export.export(folder / "model.onnx", _model(checkpoint), inputs)
            made["onnx"] = _row(
                task, split.labels, onnx_export.predict(folder / "model.onnx", inputs), _size(folder / "model.onnx"), f"{difference:.1g}"
            )
        if dtype == "int8" and dtype not in made:
            path = folder / "model_int8.onnx"
            onnx_export.quantize(folder / "model.onnx", path)
            made[dtype] = _quantised(task, split.labels, onnx_export.predict(path, inputs), _logits(checkpoint, inputs), _size(path))
        elif dtype not in made:
            exact = _logits(checkpoint, inputs)
            with quiet():
                _model(checkpoint).to(getattr(torch, dtype)).save_pretrained(folder)  # type: ignore[operator]
            rounded = _logits(open_checkpoint(str(folder), task), inputs)
            made[dtype] = _quantised(task, split.labels, rounded, exact, _size(folder / "model.safetensors"))
    (folder / FILE).write_text(json.dumps(made, indent=1) + "\n")
    _write_section(folder / "README.md", task, made)
    return [f"{name}: {task.metric} {row[0]}, {row[1]} MB" for name, row in made.items()]


def _model(checkpoint: Checkpoint) -> torch.nn.Module:
    network = checkpoint.classifier()
    if not isinstance(network, Encoder):
        raise InputError(f"{checkpoint.folder}: not a student of this package; export it with the tools of its own")
    return network.model.eval()


@torch.no_grad()
def _logits(checkpoint: Checkpoint, inputs: Inputs, batch: int = 64) -> np.ndarray:
    """Return the logits ``[N, C]`` of a checkpoint, whose weights are read into float32."""
    model, size = _model(checkpoint), len(next(iter(inputs.values())))
    parts = [model(**{name: tensor[start : start + batch] for name, tensor in inputs.items()}).logits for start in range(0, size, batch)]
    return torch.cat(parts).numpy()


def _row(task: Task, labels: np.ndarray, logits: np.ndarray, size: float, difference: str) -> list[str]:
    return [number(task.score(logits.argmax(1), labels)), f"{size:.1f}", difference]


def _quantised(task: Task, labels: np.ndarray, logits: np.ndarray, exact: np.ndarray, size: float) -> list[str]:
    return _row(task, labels, logits, size, f"{np.abs(logits - exact).max():.1g}")


def _size(path: Path) -> float:
    return path.stat().st_size / 1e6


def _write_section(card: Path, task: Task, made: dict[str, list[str]]) -> None:
    split = "validation" if task.test is None else "test"
    files = {"onnx": "model.onnx", "int8": "model_int8.onnx"}
    rows = [f"| {name} | {files.get(name, 'model.safetensors')} | {' | '.join(row)} |" for name, row in made.items()]
    head = f"| format | file | {split} {task.metric} | MB | largest difference of a logit |"
    before = card.read_text().partition(f"\n{HEADING}\n")[0].rstrip()
    card.write_text("\n".join([before, "", HEADING, "", head, "| --- | --- | --- | --- | --- |", *rows]) + "\n")
