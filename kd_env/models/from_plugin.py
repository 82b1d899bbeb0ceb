"""Build a student network of your own. In: ``module:Class(options)`` and a task. Out: a :class:`PluginNetwork`, tried on two examples.

The class is called as ``Class(task, **options)``. ``task`` is a :class:`kd_env.tasks.Task` without its test split. ``task.num_classes`` and
the shape of ``task.train.inputs`` (images) or ``task.tokenizer`` (texts) give the sizes of the network. Draw initial weights from torch's
global generator, which is seeded. :mod:`kd_env.models.plugin_network` describes the arguments and outputs of ``forward``.
"""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from kd_env import spec
from kd_env.errors import InputError
from kd_env.models.encode import encode
from kd_env.models.modes import evaluation_mode, running_statistics
from kd_env.models.plugin_network import PluginNetwork
from kd_env.plugins import resolve
from kd_env.tasks import Task
from kd_env.types import Inputs


def is_plugin(text: str) -> bool:
    """Return whether ``text`` names a class (``module:Class``, with or without options) and not a folder."""
    name = text.partition("(")[0]
    return ":" in name and "/" not in name and not any(Path(path).expanduser().is_dir() for path in (text, name))


def build(text: str, task: Task) -> PluginNetwork:
    """Build the network ``text`` and run it on two examples. Its weights are drawn from torch's global generator.

    Raises:
        InputError: the network cannot be imported, built, run or trained, or it does not return logits and features.
    """
    name, options = spec.parse(text)
    with errors_of(text, "building it fails"):
        module = spec.call(f"student {text!r}", resolve(name, "student network"), options, task.development())
    if not isinstance(module, nn.Module):
        raise InputError(f"student {text!r}: a {type(module).__name__} is not a torch.nn.Module; subclass it")
    network = PluginNetwork(module, text)
    inputs = {name: tensor.clone() for name, tensor in encode(task, task.train.inputs[:2]).items()}  # not the task's own memory
    try:
        inspect.signature(module.forward).bind(**inputs)
    except TypeError as error:
        raise InputError(f"student {text!r}: forward cannot be called with {', '.join(inputs)} ({error}); take these by name") from None
    with errors_of(text, "forward fails"):
        _require_outputs(network, inputs, task.num_classes)
        _require_repeatable(network, inputs)
    frozen = [name for name, parameter in module.named_parameters() if not parameter.requires_grad]
    if frozen or not list(module.parameters()):
        problem = (
            f"parameter {frozen[0]} does not require a gradient; register it as a buffer" if frozen else "it has no parameters to train"
        )
        raise InputError(f"student {text!r}: {problem}")
    return network


@contextmanager
def errors_of(text: str, failure: str) -> Iterator[None]:
    """Turn an error of a user's network into an input error that names the line of the user's code that raised it."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        torch_folder = str(Path(torch.__file__).parent)
        frame = [frame for frame in frames if not frame.filename.startswith(torch_folder)][-1]
        raise InputError(
            f"student {text!r}: {failure} with {type(error).__name__}: {error} ({frame.filename}, line {frame.lineno}); correct it there"
        ) from error


def _require_outputs(network: PluginNetwork, inputs: Inputs, num_classes: int) -> None:
    originals = {name: tensor.clone() for name, tensor in inputs.items()}
    with evaluation_mode(network), torch.no_grad():
        output = network(**inputs)
    for name, tensor in inputs.items():
        if not torch.equal(tensor, originals[name]):
            raise InputError(f"student {network.text!r}: forward changes its input {name}; copy it there before you change it")
    size = len(next(iter(inputs.values())))
    for name, value, width in (("logits", output.logits, num_classes), ("features", output.features, None)):
        shape = list(value.shape) if isinstance(value, Tensor) else None
        if shape is None or len(shape) != 2 or shape[0] != size or width not in (None, shape[1]):
            description = f"a {type(value).__name__}" if shape is None else f"of shape {shape}"
            raise InputError(
                f"student {network.text!r}: {name} of {size} examples are {description}, expected a tensor [{size}, {width or 'D'}]"
            )
    head = network.classifier
    if isinstance(head, nn.Linear) and head.in_features == output.features.shape[1]:
        network.classifies_features = torch.allclose(head(output.features).detach(), output.logits, rtol=1e-4, atol=1e-5)


def _require_repeatable(network: PluginNetwork, inputs: Inputs) -> None:
    """Check that a pass changes no buffers except running statistics, since passes are repeated, for example by snapshots."""
    before = {name: buffer.clone() for name, buffer in network.named_buffers()}
    with torch.no_grad():
        network(**inputs)
    changed = [name for name, buffer in network.named_buffers() if not torch.equal(buffer, before[name])]
    for name in changed:
        network.get_buffer(name).copy_(before[name])
    if unknown := sorted(set(changed) - set(running_statistics(network))):
        buffer = unknown[0].removeprefix("module.")
        raise InputError(f"student {network.text!r}: a pass changes its buffer {buffer}, but passes are repeated; keep buffers constant")
