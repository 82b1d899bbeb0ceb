"""A network with something that learns beside it: projectors and auxiliary modules. In: a network. Out: a network that computes more."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from kd_env.types import ModelOutput


class NetworkWrapper(nn.Module, ABC):
    """A network whose output a subclass extends with parameters of its own; they are left behind when the network is deployed."""

    def __init__(self, network: nn.Module) -> None:
        """Wrap ``network``."""
        super().__init__()
        self.network = network

    @property
    def classifier(self) -> nn.Module:
        """The classifier of the wrapped network."""
        classifier = self.network.classifier
        assert isinstance(classifier, nn.Module)
        return classifier

    def forward(self, extra_outputs: frozenset[str] = frozenset(), **inputs: Tensor) -> ModelOutput:
        """Run the network and extend its output."""
        return self.extend(self.network(**inputs, **({"extra_outputs": extra_outputs} if extra_outputs else {})))

    @abstractmethod
    def extend(self, output: ModelOutput) -> ModelOutput:
        """Return ``output`` with what this wrapper computes from it."""


def unwrap(network: nn.Module) -> nn.Module:
    """Return the network inside all wrappers."""
    while isinstance(network, NetworkWrapper):
        network = network.network
    return network
