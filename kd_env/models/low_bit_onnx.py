"""Export quantised layers as integer operators of ONNX. In: a quantised network. Out: a copy for the exporter.

A layer becomes ``Clip`` and ``QuantizeLinear`` of its input, ``MatMulInteger`` or ``ConvInteger`` with integer weights, and a product with
the two steps. Pairs of ``QuantizeLinear`` and ``DequantizeLinear`` would leave the choice to ONNX Runtime, which runs a convolution in
float32 where its output is not quantised, as before BatchNorm. Inputs are ``uint8`` around 0 or 128. Weights are ``int8`` around 0 in
linear layers of less than 8 bits, else ``uint8`` around 128: kernels for ``int8`` weights add pairs of products in 16 bits on CPUs without
VNNI, where 8-bit values overflow, and are slow for convolutions.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from kd_env.models.low_bit import LowBitConv2d, LowBitLayer, LowBitLinear, layers_of, sizes_of

OPSET = 20
"""Version of the operators: the exporter's own."""


def with_integer_layers(network: nn.Module) -> nn.Module:
    """Return a copy of ``network`` that the exporter writes with integer operators. It cannot run."""
    changed = copy.deepcopy(network)
    for name, layer in list(layers_of(changed)):
        owner, _, attribute = name.rpartition(".")
        integer = IntegerConv2d(layer) if isinstance(layer, LowBitConv2d) else IntegerLinear(layer)
        setattr(changed.get_submodule(owner), attribute, integer)
    return changed.eval()


class IntegerLinear(nn.Linear):
    """Stands for a quantised linear layer in an export."""

    weights: Tensor
    weight_zero: Tensor

    def __init__(self, layer: LowBitLinear) -> None:
        """Store the weights as integers."""
        super().__init__(layer.in_features, layer.out_features, layer.bias is not None, device="meta")
        self.weight, self.bias = layer.weight, layer.bias
        self.reads = IntegerInput(layer)
        _store_weights(self, layer, signed=layer.weight_quantizer.bits < 8)

    def forward(self, input: Tensor) -> Tensor:
        """Return the outputs, ``[B, ..., out_features]``."""
        inputs = (self.reads(input), self.weights.T.contiguous(), self.reads.zero, self.weight_zero)
        products = _operator("MatMulInteger", inputs, torch.int32, [*input.shape[:-1], self.out_features])
        outputs = products.to(torch.float32) * self.reads.scale
        return outputs if self.bias is None else outputs + self.bias


class IntegerConv2d(nn.Conv2d):
    """Stands for a quantised convolution in an export."""

    weights: Tensor
    weight_zero: Tensor

    def __init__(self, layer: LowBitConv2d) -> None:
        """Store the weights as integers."""
        super().__init__(**sizes_of(layer), bias=layer.bias is not None, device="meta")
        self.weight, self.bias = layer.weight, layer.bias
        self.reads = IntegerInput(layer)
        _store_weights(self, layer, signed=False)

    def forward(self, input: Tensor) -> Tensor:
        """Return the map, ``[B, out_channels, h, w]``."""
        before = [int(size) for size in self.padding]
        attributes: dict[str, int | list[int]] = {
            "pads": [*before, *before],
            "strides": list(self.stride),
            "dilations": list(self.dilation),
            "group": self.groups,
        }
        shape = self._conv_forward(input, self.weight, None).shape
        inputs = (self.reads(input), self.weights, self.reads.zero, self.weight_zero)
        outputs = _operator("ConvInteger", inputs, torch.int32, shape, attributes).to(torch.float32) * self.reads.scale
        return outputs if self.bias is None else outputs + self.bias[:, None, None]


class IntegerInput(nn.Module):
    """Quantises the input of a layer; ``scale`` is the product of the steps of input and weight."""

    step: Tensor
    zero: Tensor
    scale: Tensor

    def __init__(self, layer: LowBitLayer) -> None:
        """Store step and zero point."""
        super().__init__()
        quantizer, step = layer.input_quantizer, layer.input_quantizer.log_step.detach().exp()
        lowest = float(quantizer.lowest)
        highest = lowest + 2.0**quantizer.bits - 1.0
        self.limits = (lowest * float(step), highest * float(step)) if quantizer.bits < 8 else None  # uint8 clips 8 bits itself
        self.register_buffer("step", step)
        self.register_buffer("zero", torch.tensor(128 if lowest < 0 else 0, dtype=torch.uint8))
        self.register_buffer("scale", step * layer.weight_quantizer.log_step.detach().exp())

    def forward(self, values: Tensor) -> Tensor:
        """Return the integers."""
        clipped = values if self.limits is None else values.clamp(*self.limits)
        return _operator("QuantizeLinear", (clipped, self.step, self.zero), torch.uint8, values.shape)


def _store_weights(module: nn.Module, layer: LowBitLayer, signed: bool) -> None:
    dtype, zero = (torch.int8, 0) if signed else (torch.uint8, 128)
    integers = layer.weight_quantizer.integers(layer.weight.detach())
    module.register_buffer("weights", (integers + zero).to(dtype))
    module.register_buffer("weight_zero", torch.tensor(zero, dtype=dtype))


def _operator(
    name: str,
    inputs: tuple[Tensor, ...],
    dtype: torch.dtype,
    shape: object,
    attributes: dict[str, int | list[int]] | None = None,
) -> Tensor:
    return torch.onnx.ops.symbolic(name, inputs, attributes, dtype=dtype, shape=shape, version=OPSET)  # type: ignore[arg-type]
