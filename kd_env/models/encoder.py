"""Transformers classifiers as networks. In: a model of one of :data:`ARCHITECTURES`. Out: a network that returns a ``ModelOutput``.

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
    """A Transformers classifier; its features, computed from the first token, are the input of its last linear layer."""

    def __init__(self, model: Any) -> None:
        """Wrap ``model``, which computes attention eagerly."""
        super().__init__()
        self.model: nn.Module = model
        self._pool = ARCHITECTURES[model.config.model_type].pool

    @property
    def classifier(self) -> nn.Linear:
        """The linear layer from features to logits."""
        return [layer for layer in self.model.classifier.modules() if isinstance(layer, nn.Linear)][-1]  # type: ignore[union-attr]

    def forward(self, extra_outputs: frozenset[str] = frozenset(), **inputs: Tensor) -> ModelOutput:
        """Compute logits [B, C] and features [B, D] of token ids or pixels, and what ``extra_outputs`` names.

        ``layers``: [CLS] of the embeddings and of each layer, ``[B, 1 + depth, D]``; ``attention``: ``[B, 2, T, T]``.
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
    """Compute MiniLM's two relations of a layer (Wang et al. 2020, arXiv 2002.10957), ``[B, 2, T, T]``: query-key and value-value.

    Each is ``softmax(a b^T / sqrt(D / heads))`` of the projections ``[B, T, D]``, without dropout. Deviation: the paper compares head by
    head; here the mean over heads is taken, so that networks with different numbers of heads can be compared. Rows of padding are zero.
    """
    query, key, value = (part.view(*part.shape[:2], heads, -1).transpose(1, 2) for part in projected)  # [B, heads, T, D / heads]
    relations = []
    for left, right in ((query, key), (value, value)):
        scores = left @ right.transpose(2, 3) / left.shape[3] ** 0.5
        relations.append((scores if mask is None else scores + mask).softmax(3).mean(1))
    both = torch.stack(relations, 1)  # [B, 2, T, T]
    return both if mask is None else both * (mask == 0).to(both.dtype).transpose(2, 3)


def _additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    return (1 - mask[:, None, None].to(dtype)) * torch.finfo(dtype).min  # [B, 1, 1, T], 0 where attention may go


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
"""Transformers' names of these layers, in the order in which they run."""


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


def _vit(model: Any, output: Any) -> Tensor:
    first: Tensor = output.last_hidden_state[:, 0]
    return first


@dataclass(frozen=True)
class Architecture:
    """What differs between the architectures.

    Attributes:
        pool: computes the classifier's input from the model and its body's output.
        positions_before: number of position embeddings that no token uses.
    """

    kind: Literal["text", "image"]
    pool: Callable[[Any, Any], Tensor]
    positions_before: int = 0


ARCHITECTURES = {
    "bert": Architecture("text", _bert),
    "distilbert": Architecture("text", _distilbert),
    "roberta": Architecture("text", _roberta, positions_before=2),
    "vit": Architecture("image", _vit),
}
"""Supported architectures by Transformers' ``model_type``; MiniLM is a BERT."""
