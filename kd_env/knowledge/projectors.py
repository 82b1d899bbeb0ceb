"""A network with, for each teacher, maps to that teacher's width (FitNets' regressors; Romero et al. 2015, arXiv 1412.6550).

In: a network and the teachers' depths and widths. Out: a network whose ``ModelOutput`` holds the mapped layers (``projected``) or the
mapped features (``hints``, ``bent_hints``). The maps are learned with the network and left behind when it is deployed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from kd_env.knowledge.terms import spread
from kd_env.types import ModelOutput


class NetworkWrapper(nn.Module, ABC):
    """A network, and something that learns beside it and adds to what it says; left behind when the network is deployed."""

    def __init__(self, network: nn.Module) -> None:
        """Keep the network."""
        super().__init__()
        self.network = network

    @property
    def classifier(self) -> nn.Module:
        """The network's own."""
        classifier = self.network.classifier
        assert isinstance(classifier, nn.Module)
        return classifier

    def forward(self, extra_outputs: frozenset[str] = frozenset(), **inputs: Tensor) -> ModelOutput:
        """What the network says, and what is added."""
        return self.add(self.network(**inputs, **({"extra_outputs": extra_outputs} if extra_outputs else {})))

    @abstractmethod
    def add(self, output: ModelOutput) -> ModelOutput:
        """``output`` and more."""


class LayerProjector(NetworkWrapper):
    """Maps mapped layer l to teacher k's width by a matrix of its own, without bias."""

    def __init__(self, network: nn.Module, depth: int, width: int, teachers: Sequence[tuple[int, int]]) -> None:
        """Take a network of ``depth`` layers of ``width``; ``teachers`` holds ``(L_k, D_k)``. Draws from torch's global generator."""
        super().__init__(network)
        self.depths = [min(depth, depth_k) for depth_k, _ in teachers]
        for k, (_, width_k) in enumerate(teachers):
            self.register_parameter(f"map{k}", nn.Parameter(torch.randn(self.depths[k], width, width_k) * width**-0.5))

    def add(self, output: ModelOutput) -> ModelOutput:
        """Its layers in every teacher's width, where they are shown."""
        if output.layers is None:
            return output
        maps = [getattr(self, f"map{k}") for k in range(len(self.depths))]
        mapped = [spread(output.layers, depth) for depth in self.depths]
        return output._replace(projected=tuple(torch.einsum("bld,lde->ble", one, to) for one, to in zip(mapped, maps, strict=True)))


class LinearProjector(NetworkWrapper):
    """Maps the features, the classifier's input, to each teacher's width by a matrix, without bias."""

    def __init__(self, network: nn.Module, width: int, widths: Sequence[int]) -> None:
        """Take a network of ``width`` features; ``widths`` holds D_k. Draws from torch's global generator."""
        super().__init__(network)
        self.maps = nn.ParameterList([nn.Parameter(torch.randn(width, width_k) * width**-0.5) for width_k in widths])

    def add(self, output: ModelOutput) -> ModelOutput:
        """Its features in every teacher's width."""
        return output._replace(hints=tuple(output.features @ to for to in self.maps))


class MLPProjector(NetworkWrapper):
    """Maps the features to each teacher's width by two linear layers with a ReLU between them."""

    def __init__(self, network: nn.Module, width: int, widths: Sequence[int]) -> None:
        """Take a network of ``width`` features; ``widths`` holds D_k. Draws from torch's global generator."""
        super().__init__(network)
        self.bends = nn.ModuleList([nn.Sequential(nn.Linear(width, width_k), nn.ReLU(), nn.Linear(width_k, width_k)) for width_k in widths])

    def add(self, output: ModelOutput) -> ModelOutput:
        """Its features in every teacher's width."""
        return output._replace(bent_hints=tuple(to(output.features) for to in self.bends))
