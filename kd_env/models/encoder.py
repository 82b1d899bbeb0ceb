"""Wrap Transformers classifiers. In: a model of one of :data:`ARCHITECTURES`. Out: a network that returns a ``ModelOutput``.

The linear ``classifier`` reads ``ModelOutput.features``, as head credit expects.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from kd_env.types import ModelOutput


class Encoder(nn.Module):
    """A Transformers classifier. The features are computed from the first token and are the input of the last linear layer."""

    def __init__(self, model: Any) -> None:
        """Wrap ``model``, which must use eager attention."""
        super().__init__()
        self.model: nn.Module = model
        self._pool = ARCHITECTURES[model.config.model_type].pool

    @property
    def classifier(self) -> nn.Linear:
        """Linear layer from features to logits."""
        return [layer for layer in self.model.classifier.modules() if isinstance(layer, nn.Linear)][-1]  # type: ignore[union-attr]

    def forward(self, extra_outputs: frozenset[str] = frozenset(), **inputs: Tensor) -> ModelOutput:
        """Return logits ``[B, C]``, features ``[B, D]`` and the outputs that ``extra_outputs`` names.

        Args:
            extra_outputs: names of further outputs: ``layers``, the [CLS] vector of the embeddings and of each layer,
                ``[B, 1 + depth, D]``; ``attention``, ``[B, 2, T, T]``.
            inputs: token ids and mask, or pixels.
        """
        mask = _additive(inputs["attention_mask"], self.classifier.weight.dtype) if "attention_mask" in inputs else None
        if mask is not None:  # 4-D and additive: a 2-D mask does not pass through torch.func.vmap
            inputs["attention_mask"] = mask
        with _last_projections(self.model if "attention" in extra_outputs else None) as projected:
            output = self.model.base_model(**inputs, output_hidden_states="layers" in extra_outputs)  # type: ignore[operator]
        features = self._pool(self.model, output)
        return ModelOutput(
            self.classifier(features),
            features,
            torch.stack([layer[:, 0] for layer in output.hidden_states], 1) if "layers" in extra_outputs else None,
            attention_and_value_relation(projected, self.model.config.num_attention_heads, mask) if "attention" in extra_outputs else None,  # type: ignore[union-attr, arg-type]
        )


def attention_and_value_relation(projected: Sequence[Tensor], heads: int, mask: Tensor | None) -> Tensor:
    """Return MiniLM's two relations of a layer (Wang et al. 2020, arXiv 2002.10957), ``[B, 2, T, T]``: query-key and value-value.

    Each relation is ``softmax(a b^T / sqrt(D / heads))`` of two projections, without dropout. Rows of padding are zero. Deviation: the
    paper compares the relations of each head. Here they are averaged over the heads, so that networks can have different numbers of heads.

    Args:
        projected: query, key and value, each ``[B, T, D]``.
        heads: number of attention heads.
        mask: additive mask, ``[B, 1, 1, T]``; ``None`` without padding.
    """
    query, key, value = (part.view(*part.shape[:2], heads, -1).transpose(1, 2) for part in projected)  # [B, heads, T, D / heads]
    relations = []
    for left, right in ((query, key), (value, value)):
        scores = left @ right.transpose(2, 3) / left.shape[3] ** 0.5
        relations.append((scores if mask is None else scores + mask).softmax(3).mean(1))
    stacked = torch.stack(relations, 1)  # [B, 2, T, T]
    return stacked if mask is None else stacked * (mask == 0).to(stacked.dtype).transpose(2, 3)


def _additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    return (1 - mask[:, None, None].to(dtype)) * torch.finfo(dtype).min  # [B, 1, 1, T], 0 for tokens, the minimum for padding


@contextmanager
def _last_projections(model: nn.Module | None) -> Iterator[list[Tensor]]:
    """Collect query, key and value ``[B, T, D]`` of the last layer while ``model`` runs."""
    projected: list[Tensor] = []
    modules = [] if model is None else [module for name, module in model.named_modules() if name.rpartition(".")[2] in _PROJECTIONS][-3:]
    hooks = [module.register_forward_hook(lambda _module, _inputs, output: projected.append(output)) for module in modules]
    try:
        yield projected
    finally:
        for hook in hooks:
            hook.remove()


_PROJECTIONS = ("query", "key", "value", "q_proj", "k_proj", "v_proj", "q_lin", "k_lin", "v_lin")
"""Names of these layers in Transformers, in the order in which they run."""


def _bert(model: Any, output: Any) -> Tensor:
    pooled: Tensor = model.dropout(output.pooler_output)
    return pooled


def _distilbert(model: Any, output: Any) -> Tensor:
    pooled: Tensor = model.dropout(model.pre_classifier(output.last_hidden_state[:, 0]).relu())
    return pooled


def _roberta(model: Any, output: Any) -> Tensor:
    head = model.classifier
    pooled: Tensor = head.dropout(head.dense(head.dropout(output.last_hidden_state[:, 0])).tanh())
    return pooled


def _electra(model: Any, output: Any) -> Tensor:
    head = model.classifier
    pooled: Tensor = head.dropout(head.activation(head.dense(head.dropout(output.last_hidden_state[:, 0]))))
    return pooled


def _vit(model: Any, output: Any) -> Tensor:
    first: Tensor = output.last_hidden_state[:, 0]
    return first


@dataclass(frozen=True)
class Architecture:
    """The differences between the supported architectures.

    Attributes:
        kind: kind of input.
        pool: function of the model and the output of its body that returns the classifier's input.
        positions_before: number of position embeddings that no token uses.
    """

    kind: Literal["text", "image"]
    pool: Callable[[Any, Any], Tensor]
    positions_before: int = 0


ARCHITECTURES = {
    "bert": Architecture("text", _bert),
    "distilbert": Architecture("text", _distilbert),
    "roberta": Architecture("text", _roberta, positions_before=2),
    "xlm-roberta": Architecture("text", _roberta, positions_before=2),
    "camembert": Architecture("text", _roberta, positions_before=2),
    "electra": Architecture("text", _electra),
    "vit": Architecture("image", _vit),
}
"""Architectures that can be students and that ``kd-env teach`` trains, by their ``model_type`` in Transformers. MiniLM is a BERT."""
