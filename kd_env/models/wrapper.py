"""Wrap a network with modules that learn with it: projectors and auxiliary modules. In: a network. Out: a network with more outputs."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from kd_env.types import ModelOutput


class NetworkWrapper(nn.Module, ABC):
    """Base class of networks that add outputs to another network. The added parameters are removed when the network is deployed."""

    def __init__(self, network: nn.Module) -> None:
        """Wrap ``network``."""
        super().__init__()
        self.network = network

    @property
    def classifier(self) -> nn.Module:
        """Classifier of the wrapped network."""
        classifier = self.network.classifier
        assert isinstance(classifier, nn.Module)
        return classifier

    def forward(self, extra_outputs: frozenset[str] = frozenset(), **inputs: Tensor) -> ModelOutput:
        """Run the network and extend its output."""
        return self.extend(self.network(**inputs, **({"extra_outputs": extra_outputs} if extra_outputs else {})))

    @abstractmethod
    def extend(self, output: ModelOutput) -> ModelOutput:
        """Return ``output`` with the outputs that this wrapper computes from it."""


def unwrap(network: nn.Module) -> nn.Module:
    """Return the network inside all wrappers."""
    while isinstance(network, NetworkWrapper):
        network = network.network
    return network
