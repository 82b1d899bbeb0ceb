"""Convolutions of 1x1 that skip pixels: equal to those of PyTorch, without their fault in channels_last."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from kd_env.models.convolutional import CONVOLUTIONAL, ImageFormat
from kd_env.models.convolutional.building import build
from kd_env.models.convolutional.convolution import Convolution, has_strided_pixels, in_channels_last

IMAGE = ImageFormat(3, 5, (0.5,) * 3, (0.2,) * 3)
UPDATE = """
import torch
from kd_env.models.convolutional import ImageFormat
from kd_env.models.convolutional.building import build

network = build("{network}", ImageFormat(3, 5, (0.5,) * 3, (0.2,) * 3))
for _ in range(5):
    network(torch.randn(32, 3, 64, 64)).logits.square().mean().backward()
"""


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("bias", [False, True])
def test_values_and_gradients_are_those_of_pytorch(bias, groups):
    generator = torch.Generator().manual_seed(0)
    layers = [kind(8, 16, 1, 2, bias=bias, groups=groups) for kind in (nn.Conv2d, Convolution)]
    layers[1].load_state_dict(layers[0].state_dict())
    maps = torch.randn(16, 8, 27, 28, generator=generator).to(memory_format=torch.channels_last)
    results = []
    for layer in layers:
        inputs = maps.clone().requires_grad_()
        outputs = layer.to(memory_format=torch.channels_last)(inputs)
        (outputs * torch.linspace(0.0, 1.0, outputs.numel()).view_as(outputs)).sum().backward()
        results.append([outputs, inputs.grad, *(parameter.grad for parameter in layer.parameters())])
    for first, second in zip(*results, strict=True):
        torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", [name for name in CONVOLUTIONAL if name != "timm"])
def test_no_network_has_a_strided_convolution_of_pytorch(name):
    network = build(name, IMAGE)
    strided = [module for module in network.modules() if isinstance(module, nn.Conv2d) and has_strided_pixels(module)]
    assert all(isinstance(module, Convolution) for module in strided)
    assert bool(strided) == name.startswith(("resnet", "wrn"))


@pytest.mark.parametrize("network", ["resnet8(width=4)", "wrn(depth=10,widen=1)"])
def test_images_of_64_pixels_do_not_crash_the_process(network):
    subprocess.run([sys.executable, "-c", UPDATE.format(network=network)], check=True, timeout=120)


@pytest.mark.parametrize(("inputs", "stride", "converted"), [(8, 2, False), (16, 2, True), (8, 1, True)])
def test_a_network_of_another_library_with_the_fault_keeps_its_layout(inputs, stride, converted):
    network = nn.Sequential(nn.Conv2d(3, inputs, 3), nn.Conv2d(inputs, 32, 1, stride))
    in_channels_last(network)
    assert (network[0].weight.stride(1) == 1) == converted
