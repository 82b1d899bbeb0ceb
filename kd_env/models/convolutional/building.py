"""Build a convolutional network by name. In: ``resnet20(width=16)`` and the images that it reads. Out: the network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from inspect import signature
from typing import Any

from kd_env import spec
from kd_env.errors import InputError
from kd_env.models.convolutional.convolution import in_channels_last
from kd_env.models.convolutional.mobilenetv2 import mobilenetv2
from kd_env.models.convolutional.network import ConvolutionalNetwork, ImageFormat
from kd_env.models.convolutional.resnet import resnet, resnet_x4
from kd_env.models.convolutional.shufflenetv2 import shufflenetv2
from kd_env.models.convolutional.timm_network import timm_network
from kd_env.models.convolutional.vgg import CONVOLUTIONS, vgg
from kd_env.models.convolutional.wide_resnet import wrn

RESNET_DEPTHS = (8, 14, 20, 32, 44, 56, 110)
MAX_LAYERS = 1000
"""The largest number of layers."""
LEAST_FRACTIONS = {"dropout": 0.0, "width": 0.0625}
"""The least values of options that may be fractions."""

CONVOLUTIONAL: dict[str, Callable[..., ConvolutionalNetwork]] = {
    **{f"resnet{depth}": resnet(depth) for depth in RESNET_DEPTHS},
    **{f"resnet{depth}x4": resnet_x4(depth) for depth in (8, 32)},
    "wrn": wrn,
    **{f"vgg{depth}": vgg(depth) for depth in CONVOLUTIONS},
    "mobilenetv2": mobilenetv2,
    "shufflenetv2": shufflenetv2,
    "timm": timm_network,
}
"""Functions that build the networks, by name. They take an :class:`ImageFormat` and options."""


def build(text: str, image: ImageFormat) -> ConvolutionalNetwork:
    """Build the network ``text``. Its weights are drawn from torch's global generator.

    Raises:
        InputError: an option is unknown or out of range.
    """
    name, options = spec.parse(text)
    _check_options(name, options)
    try:
        network: ConvolutionalNetwork = spec.call(text, partial(CONVOLUTIONAL[name], image), options)
    except (TypeError, ValueError, RuntimeError, ZeroDivisionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"student {text!r} cannot be built: {error}") from None
    in_channels_last(network)
    network.text = str(spec.Spec(name, {key: value for key, value in options.items() if key != "pretrained"}))
    return network


def _check_options(name: str, options: Mapping[str, Any]) -> None:
    """Check that options are numbers in their ranges. An option is a whole number if its default is one."""
    parameters = {} if name == "timm" else signature(CONVOLUTIONAL[name]).parameters  # timm_network checks its own
    for key, value in options.items():
        if key in parameters and key != "image":  # spec.call refuses the others
            whole = isinstance(parameters[key].default, int)
            least, most = 1 if whole else LEAST_FRACTIONS[key], MAX_LAYERS if key == "depth" else 2**20
            spec.numbers(f"student {name}", whole=whole, least=least, most=most, **{key: value})
