"""Wrap a Transformers classifier of any architecture as a teacher's network. In: a model of an ``Auto`` class. Out: a ``ModelOutput``.

The model runs as Transformers runs it. Features and layers are read from what it computes on the way; a model that does not show them gives
its logits as features, and no layers.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from kd_env.errors import InputError
from kd_env.models.stages import output_of, requested
from kd_env.types import ModelOutput

CLOSE = 1e-3
"""Largest difference between the logits and a linear layer's outputs for that layer to be the one that computes the logits."""


class AnyClassifier(nn.Module):
    """A classifier that can teach, and cannot be a student: it need not pass through ``torch.func``.

    Its batches must have no padding, which some models read as text (FNet), and others expect on the left (XLNet).
    """

    def __init__(self, model: Any) -> None:
        """Wrap ``model``."""
        super().__init__()
        self.model: nn.Module = model
        self._last_linear: nn.Linear | None = None  # what computed the logits in the last pass
        self._reads_mask = "attention_mask" in inspect.signature(self.model.forward).parameters

    @property
    def classifier(self) -> nn.Linear:
        """Linear layer from features to logits.

        Raises:
            InputError: in the last pass the logits were not those of a linear layer.
        """
        if self._last_linear is None:
            name = type(self.model).__name__
            raise InputError(f"the logits of a {name} do not come from one linear layer; leave out what reads a teacher's classifier")
        return self._last_linear

    def forward(self, extra_outputs: frozenset[str] = frozenset(), **inputs: Tensor) -> ModelOutput:
        """Return logits ``[B, C]``, features ``[B, D]`` and, if ``extra_outputs`` asks for them and the model shows them, layers and maps.

        Args:
            extra_outputs: names of further outputs; ``attention`` is not given, and ``maps`` if the features are the means of the last map.
                The maps that Transformers calls hidden states are the stages: ``stem``, then ``stage1`` and so on.
            inputs: token ids and mask, or pixels.
        """
        if not self._reads_mask:
            inputs.pop("attention_mask", None)
        shows_hidden = not {"layers", "maps"}.isdisjoint(map(output_of, extra_outputs))
        with self._linear_layers() as calls:
            output = self.model(**inputs, output_hidden_states=shows_hidden, return_dict=True)
        logits: Tensor = output.logits
        self._last_linear, features, position = None, logits, None
        for layer, layer_input, result in reversed(calls):
            if (match := _matching(layer_input, result, logits)) is not None:
                self._last_linear, (features, position) = layer, match
                break
        hidden = getattr(output, "hidden_states", None)
        layers = _layers(hidden, position) if "layers" in extra_outputs else None
        maps = _last_map(hidden, features) if "maps" in extra_outputs else None
        return ModelOutput(logits, features, layers, maps=maps, stages=requested(_stages(hidden), extra_outputs))

    @contextmanager
    def _linear_layers(self) -> Iterator[list[tuple[nn.Linear, Tensor, Tensor]]]:
        """Collect the linear layers that run inside the context and have as many outputs as there are classes, with input and output."""
        calls: list[tuple[nn.Linear, Tensor, Tensor]] = []
        num_labels = self.model.config.num_labels  # type: ignore[union-attr]
        layers = [module for module in self.model.modules() if isinstance(module, nn.Linear) and module.out_features == num_labels]
        hooks = [layer.register_forward_hook(lambda module, inputs, result: calls.append((module, inputs[0], result))) for layer in layers]
        try:
            yield calls
        finally:
            for hook in hooks:
                hook.remove()


def _matching(layer_input: Tensor, result: Tensor, logits: Tensor) -> tuple[Tensor, Tensor | None] | None:
    """Return the layer's inputs ``[B, D]`` for which it gave the logits, and their token ``[B]`` if it ran on all tokens; else ``None``."""
    if result.shape == logits.shape and layer_input.ndim == 2 and torch.allclose(result, logits, rtol=CLOSE, atol=CLOSE):
        return layer_input, None
    if result.ndim != 3 or result.shape[::2] != logits.shape:
        return None
    distances = (result - logits[:, None]).abs().amax(2)  # [B, T]
    distance, position = distances.flip(1).min(1)  # the last such token: a model that reads from left to right is asked at the end
    position = result.shape[1] - 1 - position
    if bool((distance > CLOSE * (1.0 + logits.abs().amax(1))).any()):
        return None
    return layer_input[torch.arange(len(layer_input), device=layer_input.device), position], position


def _last_map(hidden: Any, features: Tensor) -> Tensor | None:
    """Return the last feature map ``[B, D, h, w]``; ``None`` if there is none whose means over positions are the features ``[B, D]``."""
    last = hidden[-1] if hidden else None
    if not isinstance(last, Tensor) or last.ndim != 4 or last.shape[:2] != features.shape:
        return None
    return last if torch.allclose(last.mean((2, 3)), features, rtol=CLOSE, atol=CLOSE) else None


def _stages(hidden: Any) -> dict[str, Tensor]:
    """Return the feature maps among the hidden states by stage; the first one is the ``stem``."""
    maps = [state for state in hidden or () if isinstance(state, Tensor) and state.ndim == 4]
    return {f"stage{number}" if number else "stem": state for number, state in enumerate(maps)}


def _layers(hidden: Any, position: Tensor | None) -> Tensor | None:
    """Return the vector of the token that is classified, or of the first one, in each layer ``[B, L, D]``; ``None`` if widths differ."""
    if not hidden or any(layer.ndim != 3 or layer.shape != hidden[0].shape for layer in hidden):
        return None
    if position is None:
        return torch.stack([layer[:, 0] for layer in hidden], 1)
    rows = torch.arange(len(position), device=position.device)
    return torch.stack([layer[rows, position] for layer in hidden], 1)
