"""Convolutional networks for small images, in the forms that papers on distillation use. ``CONVOLUTIONAL`` names them.

- ``network``: the base class. ``resnet``, ``wide_resnet``, ``vgg``, ``mobilenetv2``, ``shufflenetv2``: one architecture each.
- ``timm_network``: the networks of the library timm.
- ``building``: builds a network from its name and options. ``checkpoint``: saves and opens trained networks.
"""

from kd_env.models.convolutional.building import CONVOLUTIONAL
from kd_env.models.convolutional.checkpoint import load
from kd_env.models.convolutional.network import ConvolutionalNetwork, ImageFormat

__all__ = ["CONVOLUTIONAL", "ConvolutionalNetwork", "ImageFormat", "load"]
