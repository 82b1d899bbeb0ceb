"""Students that begin as a checkpoint. In: ``PATH(layers=0;5,dropout=0,max_length=64)``. Out: its body, cut to some layers, a new head.

Options: ``layers``, the numbers of those that stay, in their new order; ``dropout``, of all layers alike; ``max_length``, tokens of a text.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from kd_env import spec
from kd_env.errors import InputError
from kd_env.models.encode import MAX_TOKENS, Reader
from kd_env.models.encoder import Encoder
from kd_env.models.pretrained import open_checkpoint
from kd_env.tasks import Task

OPTIONS = ("layers", "dropout", "max_length")


def build(text: str, task: Task) -> Encoder:
    """The network, its head drawn from torch's generator.

    Raises:
        InputError: the checkpoint cannot be used, or an option is not one of :data:`OPTIONS` or out of range.
    """
    name, options = parse(text)
    network = open_checkpoint(name, task).network(task.num_classes, new_head=True)
    if "layers" in options:
        _cut(network.model, text, options["layers"])
    if "dropout" in options:
        spec.numbers(f"student {name}", least=0, below=1, dropout=options["dropout"])
        for module in network.modules():
            if isinstance(module, nn.Dropout):
                module.p = float(options["dropout"])
    return network.train()


def reader(text: str, task: Task) -> Reader:
    """How the student reads: as its checkpoint, 128 tokens of a text at most unless ``max_length`` says otherwise."""
    name, options = parse(text)
    length = options.get("max_length", MAX_TOKENS)
    spec.numbers(f"student {name}", least=3, whole=True, max_length=length)
    return open_checkpoint(name, task).reader(length)


def parse(text: str) -> spec.Spec:
    """Name and options; a folder may have brackets in its name."""
    if Path(text).expanduser().is_dir():
        return spec.Spec(text, {})
    said = spec.parse(text)
    for key in said.options:
        if key not in OPTIONS:
            raise spec.unknown(f"option of student {said.name!r}", key, OPTIONS)
    return said


def _cut(model: Any, text: str, layers: object) -> None:
    depth = model.config.num_hidden_layers
    parts = [part.strip() for part in str(layers).split(";") if part.strip()]
    if isinstance(layers, int) or not parts or not all(part.isdecimal() for part in parts):
        raise InputError(f"student {text!r}: layers={layers!r}; list the layers that stay, as 0;{depth - 1}, one alone as {depth - 1};")
    chosen = [int(part) for part in parts]
    if max(chosen) >= depth:
        raise InputError(f"student {text!r}: layer {max(chosen)} is not there; the checkpoint has layers 0 to {depth - 1}")
    body = model.base_model
    stack = next(name for name, one in body.named_modules() if isinstance(one, nn.ModuleList) and len(one) == depth)
    whole = body.get_submodule(stack)
    owner, _, attribute = stack.rpartition(".")
    setattr(body.get_submodule(owner), attribute, nn.ModuleList(whole[k] for k in chosen))
    model.config.num_hidden_layers = len(chosen)
