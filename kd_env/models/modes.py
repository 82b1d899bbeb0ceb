"""Switch between training and evaluation mode, and tell how a network depends on its mode. In: a network."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from kd_env.models.low_bit import Quantizer
from kd_env.models.plugin_network import PluginNetwork

SAME_IN_BOTH_MODES = (nn.Linear, nn.Embedding, nn.LayerNorm, nn.ReLU, nn.GELU, nn.Tanh, Quantizer)
"""Modules without children that return the same outputs in training and in evaluation mode."""


@contextmanager
def evaluation_mode(network: nn.Module) -> Iterator[None]:
    """Put ``network`` into evaluation mode inside the context, and into training mode after it."""
    network.eval()
    try:
        yield
    finally:
        network.train()


@contextmanager
def without_dropout(network: nn.Module) -> Iterator[None]:
    """Put ``network`` into evaluation mode inside the context, except layers with running statistics, as BatchNorm."""
    with evaluation_mode(network):
        for module in network.modules():
            if isinstance(module, nn.modules.batchnorm._NormBase):
                module.train()
        yield


def depends_on_mode(network: nn.Module) -> bool:
    """Return whether the outputs of ``network`` may differ between training and evaluation mode."""
    leaves = (module for module in network.modules() if not list(module.children()))
    return draws_in_training(network) or any(not isinstance(module, SAME_IN_BOTH_MODES) for module in leaves)


def draws_in_training(network: nn.Module) -> bool:
    """Return whether a pass in training mode may draw from torch's global generator, as dropout does."""
    return has_plugin(network) or any(getattr(module, name) > 0 for module, name in dropout_rates(network))


def dropout_rates(network: nn.Module) -> list[tuple[nn.Module, str]]:
    """Return where the rates of dropout, and of paths or layers that are dropped, are: a module and the name of its attribute.

    A rate is ``p`` of a dropout layer, or a number of a module that applies dropout without a layer, such as ``attention_dropout``.
    """
    layers = [(module, "p") for module in network.modules() if isinstance(module, nn.modules.dropout._DropoutNd)]
    functional = [(module, name) for module in network.modules() for name, value in vars(module).items() if _is_dropout_rate(name, value)]
    return layers + functional


def running_statistics(network: nn.Module) -> list[str]:
    """Return the names of the buffers that a pass in training mode updates: the running statistics of BatchNorm and similar layers."""
    norms = ((name, module) for name, module in network.named_modules() if isinstance(module, nn.modules.batchnorm._NormBase))
    return [f"{name}.{buffer}" for name, module in norms for buffer, _ in module.named_buffers()]


def _is_dropout_rate(name: str, value: object) -> bool:
    return "drop" in name and isinstance(value, int | float) and not isinstance(value, bool)


def has_plugin(network: nn.Module) -> bool:
    """Return whether ``network`` contains a user's module, which may depend on its mode and draw random numbers."""
    return any(isinstance(module, PluginNetwork) for module in network.modules())
