"""Build a student from a checkpoint. In: ``PATH(layers=0;5,dropout=0,max_length=64)``. Out: the checkpoint's body with a new head.

Options:

- ``layers``: indices of the layers to keep, in their new order.
- ``dropout``: rate of all dropout, also in attention.
- ``max_length``: number of tokens to which texts are cut.
- ``bits``, ``outer_bits``: bit-widths of weights and inputs, see :mod:`kd_env.models.low_bit`. A checkpoint that is quantised already gives
  its quantised weights; the step sizes are new.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from kd_env import spec
from kd_env.errors import InputError
from kd_env.models import low_bit
from kd_env.models.encode import Reader
from kd_env.models.encoder import Encoder
from kd_env.models.modes import dropout_rates
from kd_env.models.pretrained import open_checkpoint
from kd_env.models.saving import Saveable
from kd_env.tasks import Task

OPTIONS = ("layers", "dropout", "max_length", *low_bit.OPTIONS)


def build(text: str, task: Task) -> Saveable:
    """Return the network. Its head is drawn from torch's global generator.

    Raises:
        InputError: the checkpoint cannot be used, or an option is not one of :data:`OPTIONS` or out of range.
    """
    name, options = parse(text)
    widths, options = low_bit.split_options(text, options)
    network = open_checkpoint(name, task).network(task.num_classes)
    if "layers" in options:
        if not isinstance(network, Encoder):
            raise InputError(f"student {text!r}: a convolutional network has no layers to choose from; leave layers out")
        _cut(network.model, text, options["layers"])
    if "dropout" in options:
        spec.numbers(f"student {name}", least=0, below=1, dropout=options["dropout"])
        for module, name in dropout_rates(network):
            if name == "p" or "dropout" in name:  # not the rates of dropped paths
                setattr(module, name, float(options["dropout"]))
    if widths is not None:
        low_bit.quantize(network, widths, reader(text, task)(task.train.inputs[: low_bit.EXAMPLES]))
    return network.train()


def reader(text: str, task: Task) -> Reader:
    """Return the reader of the checkpoint. It cuts texts to the task's ``max_length`` unless its own is given."""
    name, options = parse(text)
    length = options.get("max_length", task.max_length)
    spec.numbers(f"student {name}", least=3, whole=True, max_length=length)
    return open_checkpoint(name, task).reader(length)


def parse(text: str) -> spec.Spec:
    """Split ``text`` into name and options. A folder may have brackets in its name.

    Raises:
        InputError: an option is unknown.
    """
    if Path(text).expanduser().is_dir():
        return spec.Spec(text, {})
    student = spec.parse(text)
    for key in student.options:
        if key not in OPTIONS:
            raise spec.unknown(f"option of student {student.name!r}", key, OPTIONS)
    return student


def _cut(model: Any, text: str, layers: object) -> None:
    depth = model.config.num_hidden_layers
    numbers = [number.strip() for number in str(layers).split(";") if number.strip()]
    if isinstance(layers, int) or not numbers or not all(number.isdecimal() for number in numbers):
        raise InputError(f"student {text!r}: layers={layers!r}; list the layers to keep, such as 0;{depth - 1} or, for one, {depth - 1};")
    indices = [int(number) for number in numbers]
    if max(indices) >= depth:
        raise InputError(f"student {text!r}: layer {max(indices)} does not exist; the checkpoint has layers 0 to {depth - 1}")
    body = model.base_model
    path = next(name for name, module in body.named_modules() if isinstance(module, nn.ModuleList) and len(module) == depth)
    stack = body.get_submodule(path)
    owner, _, attribute = path.rpartition(".")
    setattr(body.get_submodule(owner), attribute, nn.ModuleList(stack[number] for number in indices))
    model.config.num_hidden_layers = len(indices)
