"""Built-in architectures. In: a spec such as ``mlp(width=24)`` and a task. Out: a module ``network(**inputs) -> ModelOutput``.

Every network has a linear ``classifier`` whose input is ``ModelOutput.features``; head credit and feature knowledge rely on it.
Transformers use eager attention, which has forward-mode derivatives, and LayerNorm, which does not mix a mini-batch's examples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from kd_env import spec
from kd_env.errors import InputError
from kd_env.randomness import seeded
from kd_env.tasks import Task
from kd_env.types import ModelOutput


class MLP(nn.Module):
    """Flattened image -> ``depth`` hidden layers of ``width`` ReLU units -> classifier."""

    def __init__(self, num_inputs: int, num_classes: int, width: int = 24, depth: int = 1, dropout: float = 0.0) -> None:
        """Make the layers; ``width`` is D."""
        super().__init__()
        layers: list[nn.Module] = []
        for size in [num_inputs] + [width] * (depth - 1):
            layers += [nn.Linear(size, width), nn.ReLU()]
            if dropout:
                layers.append(nn.Dropout(dropout))
        self.body = nn.Sequential(*layers)
        self.classifier = nn.Linear(width, num_classes)

    def forward(self, pixel_values: Tensor, show: frozenset[str] = frozenset()) -> ModelOutput:
        """[B, ...] -> logits [B, C], features [B, D], and the hidden layers [B, depth, D] if ``show`` has ``layers``."""
        features, hidden = pixel_values.flatten(1), []
        for module in self.body:
            features = module(features)
            if isinstance(module, nn.ReLU):
                hidden.append(features)
        return ModelOutput(self.classifier(features), features, torch.stack(hidden, 1) if "layers" in show else None)


class Encoder(nn.Module):
    """A Transformers classifier whose pooled [CLS] is its feature."""

    def __init__(self, model: nn.Module, pool: Callable[[nn.Module, Any], Tensor]) -> None:
        """Wrap ``model``; ``pool(model, body's output)`` gives the classifier's input."""
        super().__init__()
        self.model = model
        self._pool = pool

    @property
    def classifier(self) -> nn.Linear:
        """The linear layer from features to logits."""
        head = self.model.classifier
        assert isinstance(head, nn.Linear)
        return head

    def forward(self, show: frozenset[str] = frozenset(), **inputs: Tensor) -> ModelOutput:
        """Token ids or pixels -> logits [B, C], features [B, D], and what ``show`` names.

        ``layers``: each layer's [CLS], ``[B, 1 + depth, D]``; ``attention``: ``[B, 2, T, T]``.
        """
        mask = _additive(inputs["attention_mask"], self.classifier.weight.dtype) if "attention_mask" in inputs else None
        if mask is not None:  # 4-D and additive: a 2-D mask does not pass through torch.func.vmap
            inputs["attention_mask"] = mask
        with _last_projections(self.model if "attention" in show else None) as projected:
            output = self.model.base_model(**inputs, output_hidden_states="layers" in show)  # type: ignore[operator]
        features = self._pool(self.model, output)
        return ModelOutput(
            self.classifier(features),
            features,
            torch.stack([layer[:, 0] for layer in output.hidden_states], 1) if "layers" in show else None,
            attention_and_value_relation(projected, self.model.config.num_attention_heads, mask) if "attention" in show else None,  # type: ignore[union-attr, arg-type]
        )


def attention_and_value_relation(projected: Sequence[Tensor], heads: int, mask: Tensor | None) -> Tensor:
    """MiniLM's two relations of a layer (Wang et al. 2020, arXiv 2002.10957): queries with keys, values with values -> ``[B, 2, T, T]``.

    Each is ``softmax(a b^T / sqrt(D / heads))`` of the projections ``[B, T, D]``, without dropout. The mean over heads stands for the
    paper's head by head comparison, so that networks with other numbers of heads can be compared. Rows of padding tokens are zero.
    """
    query, key, value = (one.view(*one.shape[:2], heads, -1).transpose(1, 2) for one in projected)  # [B, heads, T, D / heads]
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
    """Collects query, key and value ``[B, T, D]`` of the last layer while ``model`` runs."""
    projected: list[Tensor] = []
    modules = [] if model is None else [module for name, module in model.named_modules() if name.rpartition(".")[2] in _PROJECTIONS][-3:]
    hooks = [module.register_forward_hook(lambda _module, _inputs, output: projected.append(output)) for module in modules]
    try:
        yield projected
    finally:
        for hook in hooks:
            hook.remove()


_PROJECTIONS = ("query", "key", "value", "q_proj", "k_proj", "v_proj", "q_lin", "k_lin", "v_lin")
"""What Transformers calls them, in the order in which they run."""


def _mlp(task: Task, width: int = 24, depth: int = 1, dropout: float = 0.0) -> nn.Module:
    if task.kind != "image":
        raise InputError(f"student 'mlp' reads images, task {task.name!r} is text; use tiny-bert")
    return MLP(int(task.train.inputs[0].size), task.num_classes, width, depth, dropout)


def _tiny_bert(task: Task, width: int = 64, layers: int = 2, heads: int = 2, dropout: float = 0.1) -> nn.Module:
    if task.tokenizer is None:
        raise InputError(f"student 'tiny-bert' reads text, task {task.name!r} is {task.kind}; use mlp or tiny-vit")
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(
        vocab_size=len(task.tokenizer()),
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=2 * width,
        max_position_embeddings=128,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        **_common(task, width),
    )
    return Encoder(BertForSequenceClassification(config), _pooled_bert)


def _common(task: Task, width: int) -> dict[str, Any]:
    """Eager attention has forward-mode derivatives; weights of .02, meant for width 768, leave a narrow network on a long plateau."""
    return {"num_labels": task.num_classes, "attn_implementation": "eager", "initializer_range": width**-0.5}


def _pooled_bert(model: nn.Module, output: Any) -> Tensor:
    pooled: Tensor = model.dropout(output.pooler_output)  # type: ignore[operator]
    return pooled


def _tiny_vit(task: Task, width: int = 32, layers: int = 2, heads: int = 2, patch: int = 0, dropout: float = 0.0) -> nn.Module:
    if task.kind != "image":
        raise InputError(f"student 'tiny-vit' reads images, task {task.name!r} is text; use tiny-bert")
    from transformers import ViTConfig, ViTForImageClassification

    channels, height, side = task.train.inputs.shape[1:]
    if height != side:
        raise InputError(f"student 'tiny-vit' reads square images, task {task.name!r} has {height} x {side}")
    if (patch and side % patch) or width % heads:
        raise InputError(f"student 'tiny-vit': patch={patch} must divide the side {side}, and heads={heads} the width {width}")
    config = ViTConfig(
        image_size=side,
        patch_size=patch or max(side // 4, 1),
        num_channels=channels,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=2 * width,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        **_common(task, width),
    )
    return Encoder(ViTForImageClassification(config), _pooled_vit)


def _pooled_vit(model: nn.Module, output: Any) -> Tensor:
    first: Tensor = output.last_hidden_state[:, 0]
    return first


NETWORKS: dict[str, Callable[..., nn.Module]] = {"mlp": _mlp, "tiny-bert": _tiny_bert, "tiny-vit": _tiny_vit}


def build(text: str, task: Task, seed: int) -> nn.Module:
    """Build and initialise the network named by ``text``; equal seeds give equal weights, the global generator is left alone.

    Raises:
        InputError: no such architecture, an option it does not have, or a task of another kind.
    """
    name, options = spec.parse(text)
    if name not in NETWORKS:
        raise spec.unknown("student", name, NETWORKS)
    for key, value in options.items():
        least = 0 if key in ("dropout", "patch") else 1
        if isinstance(value, bool) or not isinstance(value, int | float) or value < least:
            raise InputError(f"student {text!r}: {key}={value!r} must be a number of at least {least}")
    with seeded(seed):
        try:
            network: nn.Module = spec.call(text, partial(NETWORKS[name], task), options)
            return network
        except (TypeError, ValueError, RuntimeError, ZeroDivisionError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"student {text!r} cannot be built: {error}") from None
