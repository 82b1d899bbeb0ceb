"""Wrap a module of your own as a student network. In: any ``torch.nn.Module``. Out: a network with the interface of the built-in ones.

The module's ``forward`` takes the encoded inputs by name: ``pixel_values``, or ``input_ids`` and ``attention_mask``. It returns ``(logits
[B, C], features [B, D])``, a mapping with these keys, or a :class:`~kd_env.types.ModelOutput`.

Two parts are optional. If ``forward`` has a parameter ``extra_outputs``, it receives the names of further outputs to return, of ``layers``,
``attention``, ``maps`` and ``maps.STAGE`` (:mod:`kd_env.models.stages`); without it, knowledge types that compare these outputs are
refused. Head credit needs an attribute ``classifier``, the ``torch.nn.Linear`` that computes the logits from the features.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping

from torch import Tensor, nn

from kd_env.errors import InputError
from kd_env.types import ModelOutput


class PluginNetwork(nn.Module):
    """A user's module with the interface of the built-in networks."""

    def __init__(self, module: nn.Module, text: str) -> None:
        """Wrap ``module``; ``text`` is its name in error messages."""
        super().__init__()
        self.module = module
        self.text = text
        self.classifies_features = False  # whether ``classifier`` computes the logits from the features; a trial run sets it
        self._takes_extra_outputs = "extra_outputs" in inspect.signature(module.forward).parameters

    @property
    def classifier(self) -> nn.Module | None:
        """The module's ``classifier``, or ``None``."""
        return dict(self.module.named_children()).get("classifier")

    def forward(self, extra_outputs: frozenset[str] = frozenset(), **inputs: Tensor) -> ModelOutput:
        """Run the module and return its outputs by name.

        Raises:
            InputError: the module returns other outputs, or credit needs a forward-mode derivative that an operation does not have.
        """
        keywords = {"extra_outputs": extra_outputs} if extra_outputs and self._takes_extra_outputs else {}
        try:
            return self._named(self.module(**inputs, **keywords))
        except NotImplementedError as error:
            reason = str(error).splitlines()[0]
            raise InputError(f"student {self.text!r}: {reason}; use another operation, or a credit other than first_order") from error

    def _named(self, returned: object) -> ModelOutput:
        if isinstance(returned, ModelOutput):
            return returned
        if isinstance(returned, Mapping) and {"logits", "features"} <= returned.keys():
            layers, attention = returned.get("layers"), returned.get("attention")
            maps, stages = returned.get("maps"), returned.get("stages", {})
            return ModelOutput(returned["logits"], returned["features"], layers, attention, maps=maps, stages=stages)
        if isinstance(returned, tuple) and len(returned) == 2:
            return ModelOutput(*returned)
        description = (
            f"{type(returned).__name__} of {', '.join(map(str, returned))}" if isinstance(returned, Mapping) else type(returned).__name__
        )
        raise InputError(
            f"student {self.text!r}: forward returned a {description}; return (logits, features), a mapping with these keys, or a "
            "kd_env.types.ModelOutput"
        )
