"""Export a classifier as ONNX and compare its outputs. In: a model and encoded inputs. Out: an ONNX file.

This needs the optional packages of the extra ``export``. The file takes any number of examples and of tokens.
"""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
import warnings
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from kd_env.errors import InputError
from kd_env.models.checkpoint_files import first_line
from kd_env.models.low_bit import is_low_bit
from kd_env.models.low_bit_onnx import with_integer_layers
from kd_env.types import Inputs

PACKAGES = ("onnx", "onnxruntime", "onnxscript")
TOLERANCE = 1e-3
"""Largest difference of a logit between torch and ONNX Runtime that is accepted. Rounding in float32 gives smaller ones."""
CHECK_BATCH_SIZE = 16
"""Number of examples in each batch that is compared."""


def require_packages() -> None:
    """Check that the optional packages are installed.

    Raises:
        InputError: a package is not installed.
    """
    if missing := [name for name in PACKAGES if find_spec(name) is None]:
        raise InputError(f"--export onnx: {', '.join(missing)} not installed; pip install 'kd-env[export]'")


def export(path: Path, model: nn.Module, inputs: Inputs) -> float:
    """Write ``model`` to ``path`` and return the largest difference of its logits from ONNX Runtime's on ``inputs``.

    Quantised layers are written as integer operators. There, a value in the middle between two steps can be rounded otherwise, so that the
    logits of single examples can differ by more than :data:`TOLERANCE`; those of the median example must not.

    Args:
        path: the file.
        model: a Transformers classifier or a convolutional network, in evaluation mode on the CPU; its layers may be quantised.
        inputs: encoded examples, at least two, to trace the model and to compare the outputs.

    Raises:
        InputError: a package is not installed, the model cannot be exported, or the outputs differ.
    """
    require_packages()
    wrapped, names = _Logits(model, list(inputs)).eval(), list(inputs)
    with _silent(), tempfile.TemporaryDirectory() as reports:
        try:
            torch.onnx.export(
                with_integer_layers(wrapped),
                tuple(tensor[:2] for tensor in inputs.values()),
                path,
                input_names=names,
                output_names=["logits"],
                dynamic_shapes=tuple(_axes(tensor) for tensor in inputs.values()),
                dynamo=True,
                external_data=False,
                artifacts_dir=reports,
            )
        except torch.onnx.errors.OnnxExporterError as error:
            raise InputError(
                f"{path}: {type(model).__name__} cannot be exported as ONNX ({first_line(error)}); leave --export out"
            ) from None
    batches = [_differences(path, wrapped, inputs, start, shorter) for start, shorter in ((0, False), (CHECK_BATCH_SIZE, True))]
    difference = max(float(batch.max()) for batch in batches)
    if not (max(float(np.median(batch)) for batch in batches) if is_low_bit(model) else difference) <= TOLERANCE:
        path.unlink()
        raise InputError(
            f"{path}: its logits differ from those of the student by up to {difference:g}, so the file was deleted; leave --export out"
        )
    return difference


def quantize(path: Path, target: Path) -> None:
    """Write the ONNX file ``path`` to ``target`` with weights in int8 (dynamic quantisation: activations are quantised at run time)."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with _silent():
        quantize_dynamic(path, target, weight_type=QuantType.QInt8)


def predict(path: Path, inputs: Inputs, batch: int = 64) -> np.ndarray:
    """Return the logits ``[N, C]`` that ONNX Runtime computes on one thread of the CPU."""
    run, size = runner(path), len(next(iter(inputs.values())))
    return np.concatenate(
        [run({name: tensor[start : start + batch] for name, tensor in inputs.items()}) for start in range(0, size, batch)]
    )


def runner(path: Path) -> Callable[[Inputs], np.ndarray]:
    """Open an ONNX file, and return a function from inputs to logits ``[N, C]`` that runs it on one thread of the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def run(inputs: Inputs) -> np.ndarray:
        logits: np.ndarray = session.run(None, {name: tensor.numpy() for name, tensor in inputs.items()})[0]
        return logits

    return run


class _Logits(nn.Module):
    """A model that returns the logits alone, for inputs in the order of ``names``."""

    def __init__(self, model: Any, names: Sequence[str]) -> None:
        super().__init__()
        self.model, self.names = model, names

    def forward(self, first: Tensor, second: Tensor | None = None, third: Tensor | None = None) -> Tensor:
        tensors = [tensor for tensor in (first, second, third) if tensor is not None]
        logits: Tensor = self.model(**dict(zip(self.names, tensors, strict=True))).logits
        return logits


def _axes(tensor: Tensor) -> dict[int, Any]:
    """Return the dynamic axes of an input: examples and tokens of texts ``[N, T]``, examples of images ``[N, channels, H, W]``."""
    return dict.fromkeys((0, 1) if tensor.ndim == 2 else (0,), torch.export.Dim.DYNAMIC)


@torch.no_grad()
def _differences(path: Path, model: nn.Module, inputs: Inputs, start: int, shorter: bool) -> np.ndarray:
    """Return the largest difference of a logit for each example of one batch.

    Args:
        path: the ONNX file.
        model: the model.
        inputs: encoded examples.
        start: first example of the batch.
        shorter: whether to cut the padding, so that the number of tokens differs from that of the traced examples.
    """
    rows = {name: tensor[start : start + CHECK_BATCH_SIZE] if len(tensor) > start else tensor[:1] for name, tensor in inputs.items()}
    if shorter and "attention_mask" in rows:
        longest = max(2, int(rows["attention_mask"].sum(1).max()))
        rows = {name: tensor[:, :longest] for name, tensor in rows.items()}
    differences: np.ndarray = np.abs(predict(path, rows) - model(*rows.values()).numpy()).max(1)
    return differences


@contextlib.contextmanager
def _silent() -> Any:
    """Suppress the output and the warnings of the exporter, which concern its internals."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
