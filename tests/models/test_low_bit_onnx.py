"""Exported quantised layers are integer operators, and ONNX Runtime gives the student's logits."""

import collections

import numpy as np
import pytest
import torch
from torch import nn

from kd_env.models import onnx_export
from kd_env.models.low_bit import LowBitConv2d, LowBitLinear, Quantizer
from kd_env.models.low_bit_onnx import IntegerInput, IntegerLinear, with_integer_layers
from kd_env.models.networks import build
from kd_env.types import ModelOutput

pytest.importorskip("onnxruntime")


def linear_layer(bits, signed):
    layer = nn.Linear(4, 3)
    with torch.no_grad():
        layer.weight.copy_(torch.linspace(-1, 1, 12).view(3, 4))
    return LowBitLinear(layer, Quantizer(bits, True, -1.0), Quantizer(bits, signed, -2.0))


@pytest.mark.parametrize(("bits", "dtype", "zero"), [(4, torch.int8, 0), (8, torch.uint8, 128)])
def test_weights_are_stored_as_integers(bits, dtype, zero):
    layer = linear_layer(bits, signed=True)
    stored = IntegerLinear(layer)
    assert stored.weights.dtype == dtype
    values = (stored.weights.float() - zero) * layer.weight_quantizer.log_step.detach().exp()
    torch.testing.assert_close(values, layer.weight_quantizer(layer.weight, 12).detach(), rtol=0, atol=0)


def test_inputs_are_clipped_to_their_bits():
    reads = IntegerInput(linear_layer(4, signed=True))
    step = float(np.exp(-2.0))
    assert reads.limits == pytest.approx((-8 * step, 7 * step))
    assert int(reads.zero) == 128
    assert IntegerInput(linear_layer(4, signed=False)).limits == pytest.approx((0.0, 15 * step))
    assert IntegerInput(linear_layer(8, signed=False)).limits is None


class Mixed(nn.Module):
    """Layers of all kinds: strided, grouped and dilated convolutions with and without bias, and 8-bit layers at their extremes."""

    def __init__(self):
        super().__init__()
        plain = [
            (nn.Conv2d(1, 4, 3, stride=2, padding=1), 8, True),
            (nn.Conv2d(4, 4, 3, padding=2, dilation=2, groups=4, bias=False), 3, False),
            (nn.Conv2d(4, 6, (1, 3), padding=(0, 1)), 4, True),
        ]
        self.convolutions = nn.ModuleList(
            LowBitConv2d(layer, Quantizer(bits, True, -3.0), Quantizer(bits, signed, -1.5)) for layer, bits, signed in plain
        )
        self.middle = LowBitLinear(nn.Linear(6, 64, bias=False), Quantizer(2, True, -1.5), Quantizer(2, False, -1.5))
        self.last = LowBitLinear(nn.Linear(64, 3), Quantizer(8, True, -6.5), Quantizer(8, False, -7.0))

    def forward(self, pixel_values):
        maps = pixel_values
        for convolution in self.convolutions:
            maps = convolution(maps)
        features = self.middle(maps.relu().flatten(2).transpose(1, 2)).relu().mean(1)
        return ModelOutput(self.last(features), features)


@pytest.mark.long
def test_all_kinds_of_layers_give_the_same_logits_in_onnx_runtime(tmp_path):
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    network, pixels = Mixed().eval(), 4 * torch.randn(40, 1, 9, 9, generator=generator)
    assert onnx_export.export(tmp_path / "model.onnx", network, {"pixel_values": pixels}) < 1e-3
    logits = onnx_export.predict(tmp_path / "model.onnx", {"pixel_values": pixels})
    with torch.no_grad():
        differences = np.abs(logits - network(pixels).logits.numpy()).max(1)
    assert np.median(differences) < 1e-5
    assert logits.std(0).min() > 1e-3, "examples differ"
    import onnx

    operators = collections.Counter(node.op_type for node in onnx.load(tmp_path / "model.onnx").graph.node)
    assert operators["ConvInteger"] == 3
    assert operators["MatMulInteger"] == 2
    assert not operators.keys() & {"Conv", "Gemm", "MatMul"}


def test_a_network_in_float32_is_exported_as_it_is(digits_data):
    network = build("mlp(width=4)", digits_data.task, 0)
    twin = with_integer_layers(network)
    assert [type(module) for module in twin.modules()] == [type(module) for module in network.modules()]
