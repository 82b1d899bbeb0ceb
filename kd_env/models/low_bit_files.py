"""Save and open quantised networks. In: a network with quantised layers. Out: its plain form, and ``low_bit.json`` with the step sizes.

The weights of a checkpoint are the quantised ones, so any program that reads the checkpoint has them; the inputs of its layers are only
quantised after :func:`restore`.
"""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from kd_env.errors import InputError
from kd_env.models.checkpoint_files import read_json
from kd_env.models.low_bit import Quantizer, is_low_bit, layers_of, replace, sizes_of

FILE = "low_bit.json"
Network = TypeVar("Network", bound=nn.Module)


def save_steps(folder: Path, network: Network) -> Network:
    """Write the step sizes of a quantised network, and return a copy with plain layers that have its quantised weights.

    Another network is returned as it is, and nothing is written.
    """
    if not is_low_bit(network):
        return network
    steps = {
        name: {
            "bits": layer.weight_quantizer.bits,
            "signed_input": bool(layer.input_quantizer.lowest < 0),
            "log_weight_step": float(layer.weight_quantizer.log_step.detach()),
            "log_input_step": float(layer.input_quantizer.log_step.detach()),
        }
        for name, layer in layers_of(network)
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FILE).write_text(json.dumps({"layers": steps}, indent=1) + "\n")
    return plain(network)


def plain(network: Network) -> Network:
    """Return a copy of a network in which layers are not quantised, with its quantised weights."""
    changed = copy.deepcopy(network)
    for name, layer in list(layers_of(changed)):
        has_bias, unquantised = layer.bias is not None, nn.Module()
        if isinstance(layer, nn.Linear):
            unquantised = nn.Linear(layer.in_features, layer.out_features, has_bias, device="meta")
        else:
            unquantised = nn.Conv2d(**sizes_of(layer), bias=has_bias, device="meta")
        with torch.no_grad():
            weight = layer.weight_quantizer(layer.weight, layer.weight.numel())
        unquantised.weight, unquantised.bias = nn.Parameter(weight), layer.bias
        owner, _, attribute = name.rpartition(".")
        setattr(changed.get_submodule(owner), attribute, unquantised.train(layer.training))
    return changed


def restore(network: Network, folder: str | Path) -> Network:
    """Quantise the layers of ``network``, which was read from ``folder``, as they were when it was saved, and return it.

    Without ``low_bit.json`` in the folder, the network stays as it is.

    Raises:
        InputError: the file is damaged or does not fit the network.
    """
    path = Path(folder) / FILE
    if not path.exists():
        return network
    content = read_json(path)
    try:
        for name, entry in content["layers"].items():
            layer = network.get_submodule(name)
            if not isinstance(layer, nn.Linear | nn.Conv2d):
                raise TypeError(f"{name} is a {type(layer).__name__}")
            bits, steps = int(entry["bits"]), [float(entry[key]) for key in ("log_weight_step", "log_input_step")]
            if not 2 <= bits <= 8 or not all(map(math.isfinite, steps)):
                raise ValueError(f"{name} has {bits} bits and steps of exp{tuple(steps)}")
            weights, inputs = Quantizer(bits, True, steps[0]), Quantizer(bits, bool(entry["signed_input"]), steps[1])
            replace(network, name, layer, weights, inputs)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{path} cannot be used ({type(error).__name__}: {error}); save or teach that network again") from None
    return network
