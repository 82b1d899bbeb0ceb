"""Train networks at a low bit-width. In: a network, a number of bits and some examples. Out: the network with quantised layers.

Each ``nn.Linear`` and ``nn.Conv2d`` that a pass reaches becomes a layer that quantises its weight and its input with learned step sizes
(LSQ, Esser et al. 2020, arXiv 1902.08153). Values stay floating-point numbers, multiples of a step, so that gradients exist. Embeddings,
norms, biases and the products inside attention stay in float32.

Deviations from the paper: a step is the exponential of the parameter that learns, so that it stays positive under Adam; under SGD, a small
step therefore learns more slowly. The first steps of inputs come from a pass over the first examples of train, not from the first
mini-batch.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from kd_env import spec
from kd_env.errors import InputError
from kd_env.models.convolutional.convolution import Convolution
from kd_env.randomness import reproducible
from kd_env.types import Inputs

OPTIONS = ("bits", "outer_bits")
EXAMPLES = 32
"""Number of examples from which the first steps of inputs are computed."""
MIN_STEP = 1e-6
"""Least first step, for values that are all 0."""


@dataclass(frozen=True)
class LowBit:
    """Bit-widths of a network.

    Attributes:
        bits: bits of the weights and inputs of the layers between the outer ones.
        outer_bits: bits of the classifier and, for images, of the first layer; 8 in the paper.
    """

    bits: int
    outer_bits: int = 8


class Quantizer(nn.Module):
    """Rounds values to multiples of a learned step, at most ``2 ** bits`` of them."""

    lowest: Tensor

    def __init__(self, bits: int, signed: bool, log_step: float) -> None:
        """Store the range.

        Args:
            bits: bits of a value.
            signed: whether values are from ``-2 ** (bits - 1)`` on, in steps, or from 0 on.
            log_step: natural logarithm of the step.
        """
        super().__init__()
        self.bits = bits
        self.log_step = nn.Parameter(torch.tensor(log_step))
        self.register_buffer("lowest", torch.tensor(-(2.0 ** (bits - 1)) if signed else 0.0))  # a population refuses different ones

    def forward(self, values: Tensor, count: int) -> Tensor:
        """Return the quantised values.

        The gradient passes through the rounding, and not where values are clipped. That of the step is scaled by
        ``1 / sqrt(count * highest)``.

        Args:
            values: values of any shape.
            count: number of weights, or of the input's values for one example.
        """
        highest = self.lowest + (2.0**self.bits - 1.0)
        step = self.log_step.exp()
        step = step.detach() + (step - step.detach()) * (count * highest) ** -0.5  # the same number
        scaled = torch.clamp(values / step, self.lowest, highest)
        return (scaled + (scaled.round() - scaled).detach()) * step

    def integers(self, values: Tensor) -> Tensor:
        """Return the quantised values in steps, as float."""
        return (values / self.log_step.exp()).clamp(self.lowest, self.lowest + (2.0**self.bits - 1.0)).round()


class LowBitLinear(nn.Linear):
    """A linear layer whose weight and input are quantised."""

    def __init__(self, layer: nn.Linear, weights: Quantizer, inputs: Quantizer) -> None:
        """Take over the parameters of ``layer``."""
        super().__init__(layer.in_features, layer.out_features, layer.bias is not None, device="meta")
        self.weight, self.bias = layer.weight, layer.bias
        self.weight_quantizer, self.input_quantizer = weights, inputs

    def forward(self, input: Tensor) -> Tensor:
        """Return the outputs, ``[B, ..., out_features]``."""
        weight = self.weight_quantizer(self.weight, self.weight.numel())
        return linear(self.input_quantizer(input, input[0].numel()), weight, self.bias)


class LowBitConv2d(Convolution):
    """A convolution whose weight and input are quantised."""

    def __init__(self, layer: nn.Conv2d, weights: Quantizer, inputs: Quantizer) -> None:
        """Take over the parameters of ``layer``."""
        super().__init__(**sizes_of(layer), bias=layer.bias is not None, device="meta")
        self.weight, self.bias = layer.weight, layer.bias
        self.weight_quantizer, self.input_quantizer = weights, inputs

    def forward(self, input: Tensor) -> Tensor:
        """Return the map, ``[B, out_channels, h, w]``."""
        weight = self.weight_quantizer(self.weight, self.weight.numel())
        outputs: Tensor = self._conv_forward(self.input_quantizer(input, input[0].numel()), weight, self.bias)
        return outputs


def sizes_of(layer: nn.Conv2d) -> dict[str, Any]:
    """Return the arguments with which a convolution is built, without ``bias``."""
    names = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups")
    return {name: getattr(layer, name) for name in names}


LowBitLayer = LowBitLinear | LowBitConv2d


def split_options(text: str, options: Mapping[str, Any]) -> tuple[LowBit | None, dict[str, Any]]:
    """Return the bit-widths among the options of a student, ``None`` for a network in float32, and its other options.

    Raises:
        InputError: a bit-width is out of range, or there is ``outer_bits`` without ``bits``.
    """
    widths = {name: options[name] for name in OPTIONS if name in options}
    rest = {name: value for name, value in options.items() if name not in OPTIONS}
    if not widths:
        return None, rest
    spec.numbers(f"student {text.partition('(')[0]}", least=2, most=8, whole=True, **widths)
    if "bits" not in widths:
        raise InputError(f"student {text!r}: outer_bits={widths['outer_bits']} needs bits, the width of the other layers; add bits=4")
    return LowBit(**widths), rest


def quantize(network: nn.Module, widths: LowBit, inputs: Inputs) -> None:
    """Replace the layers of ``network``. Its weights stay, and no random number is drawn.

    A first step is ``2 mean|v| / sqrt(highest)``. An input is unsigned if no value of ``inputs`` is negative there.

    Args:
        network: a built-in network or a checkpoint's, which returns a ``ModelOutput``.
        widths: the bit-widths.
        inputs: encoded examples.
    """
    seen = _inputs_of_layers(network, inputs)
    outer = {_classifier_name(network)} | (set(list(seen)[:1]) if "pixel_values" in inputs else set())
    for name, (mean, signed) in seen.items():
        bits = widths.outer_bits if name in outer else widths.bits
        layer = network.get_submodule(name)
        assert isinstance(layer, nn.Linear | nn.Conv2d)
        weights = Quantizer(bits, True, _first_log_step(float(layer.weight.detach().abs().mean()), bits, signed=True))
        replace(network, name, layer, weights, Quantizer(bits, signed, _first_log_step(mean, bits, signed)))


def replace(network: nn.Module, name: str, layer: nn.Module, weights: Quantizer, inputs: Quantizer) -> None:
    """Put a quantised form of ``layer``, which shares its parameters, in its place ``name`` of ``network``."""
    owner, _, attribute = name.rpartition(".")
    kind = LowBitLinear if isinstance(layer, nn.Linear) else LowBitConv2d
    quantised = kind(layer, weights, inputs)  # type: ignore[arg-type]
    setattr(network.get_submodule(owner), attribute, quantised.train(layer.training))


def layers_of(network: nn.Module) -> Iterator[tuple[str, LowBitLayer]]:
    """Yield the quantised layers of a network with their names."""
    for name, module in network.named_modules():
        if isinstance(module, LowBitLayer):
            yield name, module


def is_low_bit(network: nn.Module) -> bool:
    """Return whether a network has quantised layers."""
    return any(True for _ in layers_of(network))


class _Seen(NamedTuple):
    """What a layer reads: the mean of the absolute values, and whether there are negative ones."""

    mean: float
    signed: bool


def _inputs_of_layers(network: nn.Module, inputs: Inputs) -> dict[str, _Seen]:
    """Return what each layer reads, in the order in which they run, for a pass without dropout and with the statistics of the batch.

    The pass runs a copy, so that running statistics stay.
    """
    observed, seen = copy.deepcopy(network).eval(), dict[str, _Seen]()
    for name, module in observed.named_modules():
        if isinstance(module, nn.modules.batchnorm._NormBase):
            module.train()
        if isinstance(module, nn.Linear | nn.Conv2d):

            def look(_: nn.Module, arguments: tuple[Tensor, ...], name: str = name) -> None:
                seen.setdefault(name, _Seen(float(arguments[0].abs().mean()), bool(arguments[0].min() < 0)))

            module.register_forward_pre_hook(look)
    with torch.no_grad(), reproducible():
        observed(**inputs)
    return seen


def _classifier_name(network: nn.Module) -> str:
    name: str = next(name for name, module in network.named_modules() if module is network.classifier)
    return name


def _first_log_step(mean: float, bits: int, signed: bool) -> float:
    highest = 2.0 ** (bits - signed) - 1.0
    return float(torch.tensor(max(2.0 * mean / highest**0.5, MIN_STEP), dtype=torch.float64).log())
