"""Build the student's optimizer and learning-rate schedule. In: ``adamw(lr=0.001,warmup=0.1,decay=linear)``. Out: a torch optimizer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from kd_env import spec
from kd_env.errors import InputError

MOMENTUM = 0.9
"""Momentum of SGD."""
FUSED_ABOVE = 1_000_000
"""Number of parameters above which Adam uses its fused form, which is five times faster for the embeddings of a pretrained vocabulary.
Below this number the gain is small, and the fused form would change the last bits of the committed records."""
STEPS = (150 / 240, 180 / 240, 210 / 240)
"""Fractions of the budget at which ``decay=steps`` lowers the rate: epochs 150, 180 and 210 of 240, as papers on CIFAR-100 have it."""


@dataclass(frozen=True)
class OptimizerOptions:
    """Options of an optimizer, such as ``adam(lr=0.003,weight_decay=0,warmup=0,decay=constant)``.

    Attributes:
        name: optimizer: ``adam``, ``adamw`` or ``sgd`` (with momentum 0.9).
        lr: peak learning rate.
        weight_decay: weight decay.
        warmup: fraction of the updates over which the rate rises linearly from 0.
        decay: schedule after the warm-up: ``constant``; ``linear`` or ``cosine`` down to 0 at the last update; or ``steps``, a tenth of the
            rate before from each of :data:`STEPS` of the budget on.
        nesterov: whether ``sgd`` has Nesterov's form of the momentum.
    """

    name: str = "adam"
    lr: float = 3e-3
    weight_decay: float = 0.0
    warmup: float = 0.0
    decay: str = "constant"
    nesterov: bool = False

    @classmethod
    def of(cls, text: str) -> OptimizerOptions:
        """Return the options of an optimizer spec.

        Raises:
            InputError: a name or an option is unknown, or a value is out of range.
        """
        name, options = spec.parse(text)
        if name not in ("adam", "adamw", "sgd"):
            raise spec.unknown("optimizer", name, ("adam", "adamw", "sgd"))
        parsed: OptimizerOptions = spec.call(f"optimizer {text!r}", cls, options, name)
        spec.numbers(f"optimizer {name}", above=0, lr=parsed.lr)
        spec.numbers(f"optimizer {name}", least=0, weight_decay=parsed.weight_decay)
        spec.numbers(f"optimizer {name}", least=0, below=1, warmup=parsed.warmup)
        spec.one_of(f"optimizer {name}", "constant", "linear", "cosine", "steps", decay=parsed.decay)
        spec.one_of(f"optimizer {name}", True, False, nesterov=parsed.nesterov)
        if parsed.nesterov and name != "sgd":
            raise InputError(f"optimizer {text!r}: nesterov is a form of the momentum of sgd; leave it out")
        return parsed

    def rate(self, progress: float) -> float:
        """Return the learning rate at ``progress`` in [0, 1) of the budget."""
        if progress < self.warmup:
            return self.lr * progress / self.warmup
        match self.decay:
            case "linear":
                return self.lr * (1.0 - progress) / (1.0 - self.warmup)
            case "cosine":
                return self.lr * 0.5 * (1.0 - math.cos(math.pi * (1.0 - progress) / (1.0 - self.warmup)))
            case "steps":
                return self.lr * 0.1 ** sum(progress >= step for step in STEPS)
            case _:
                return self.lr

    @property
    def gradient_factor(self) -> float:
        """Factor of SGD's momentum on the gradient of the update that is made now."""
        return 1.0 + MOMENTUM if self.nesterov else 1.0

    def build(self, network: nn.Module) -> torch.optim.Optimizer:
        """Return a torch optimizer for the parameters of ``network``."""
        parameters = list(network.parameters())
        if self.name == "sgd":
            return torch.optim.SGD(parameters, lr=self.lr, momentum=MOMENTUM, weight_decay=self.weight_decay, nesterov=self.nesterov)
        kind = torch.optim.Adam if self.name == "adam" else torch.optim.AdamW
        large = sum(parameter.numel() for parameter in parameters) > FUSED_ABOVE
        return kind(parameters, lr=self.lr, weight_decay=self.weight_decay, foreach=not large, fused=large)


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return the state of an optimizer by name: ``INDEX.KEY`` for the parameter number INDEX."""
    return {
        f"{index}.{key}": tensor
        for index, state in optimizer.state_dict()["state"].items()
        for key, tensor in state.items()
        if tensor is not None
    }


def load_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Load a copy of what :func:`optimizer_tensors` returned."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = tensor.clone()  # torch would keep the tensor itself and step it in place
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
