"""A population: S students of one architecture that learn in one batched step.

In: S networks. Out: what :class:`~kd_env.student.student.Student` does, for rows that are those of student 0, then of student 1 and so
on. All parameters are one matrix ``[S, P]``; a forward pass is ``torch.func.vmap`` of the network over its rows, and the optimizer a few
operations on the whole matrix, with a step count and a rate for each student. What one student does never touches another.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn
from torch.func import functional_call, vmap

from kd_env.errors import InputError
from kd_env.models.encode import in_batches, take
from kd_env.student.optimizer import OptimizerOptions
from kd_env.student.student import evaluation_mode, in_full_precision, mode_matters, scores
from kd_env.types import Inputs, ModelOutput

BETAS, EPS, MOMENTUM = (0.9, 0.999), 1e-8, 0.9
"""Torch's defaults, as a lone student has them."""


class Population:
    """S networks that learn as S :class:`~kd_env.student.student.Student` would; with dropout each row draws its own mask."""

    def __init__(
        self,
        networks: Sequence[nn.Module],
        options: OptimizerOptions,
        device: torch.device,
        precision: str = "auto",
        metric: str = "accuracy",
    ) -> None:
        """Take S networks of one architecture; the first also lends its code.

        Raises:
            InputError: the architecture mixes examples or has no batched attention.
        """
        self.device, self.options, self.metric, self.num_students = device, options, metric, len(networks)
        self.autocast = precision == "bfloat16" or (precision == "auto" and device.type == "cuda")
        self.dtype = torch.float64 if precision == "float64" else torch.float32
        self.network = networks[0].to(device, self.dtype)
        refuse_what_does_not_batch(self.network)
        self._shapes = {name: parameter.shape for name, parameter in self.network.named_parameters()}
        self.theta = torch.stack([self._flat(network) for network in networks]).requires_grad_()  # [S, P]
        self.first, self.second = torch.zeros_like(self.theta), torch.zeros_like(self.theta)  # moments; of SGD the first is momentum
        self.steps = torch.zeros(self.num_students, 1, dtype=torch.float64)
        self.has_dropout = any(isinstance(module, nn.Dropout) and module.p > 0 for module in self.network.modules())
        self._mode_matters = mode_matters(self.network)

    @property
    def parameters(self) -> list[Tensor]:
        """The matrix of all parameters."""
        return [self.theta]

    def forward(self, inputs: Inputs, extra_outputs: frozenset[str] = frozenset()) -> ModelOutput:
        """One pass of all students, each over its own rows."""
        with torch.autocast(self.device.type, torch.bfloat16) if self.autocast else nullcontext():
            return in_full_precision(self._call(self.theta, inputs, extra_outputs), self.dtype)

    def forward_at(self, parameters: Sequence[Tensor], inputs: Inputs, extra_outputs: frozenset[str] = frozenset()) -> ModelOutput:
        """One pass with other parameters ``[S, P]``; autocast off."""
        return self._call(parameters[0], inputs, extra_outputs)

    def classify(self, features: Tensor, parameters: Sequence[Tensor]) -> Tensor:
        """The last layers of ``leaves`` alone: features ``[rows, D]`` -> logits ``[rows, C]``."""
        parts = self._parts(parameters[0])
        place = {id(parameter): name for name, parameter in self.network.named_parameters()}
        head = self.network.classifier
        assert isinstance(head, nn.Linear)
        weight, bias = (parts[place[id(parameter)]] for parameter in (head.weight, head.bias))  # [S, C, D], [S, C]
        grouped = features.view(self.num_students, -1, features.shape[1])
        return torch.baddbmm(bias[:, None], grouped, weight.transpose(1, 2)).flatten(0, 1)

    def cast(self, inputs: Inputs) -> Inputs:
        """Floating inputs in the networks' type; ids as they are."""
        return {name: tensor.to(self.dtype) if tensor.is_floating_point() else tensor for name, tensor in inputs.items()}

    def step(self, loss: Tensor, progress: ArrayLike, learns: ArrayLike = True) -> None:
        """Backpropagate ``loss``, the sum over students, and step those that learn ``[S]`` at the rates for ``progress`` ``[S]``."""
        self.theta.grad = None
        loss.backward()  # type: ignore[no-untyped-call]
        assert self.theta.grad is not None
        found = self._moved(self.theta.grad, progress)
        chosen = torch.from_numpy(np.broadcast_to(np.asarray(learns, dtype=np.bool_), self.num_students).copy())[:, None]
        self.steps += chosen
        if not chosen.all():
            kept = chosen.to(self.device)
            found = [torch.where(kept, new, old) for new, old in zip(found, (self.theta.detach(), self.first, self.second), strict=True)]
        self.theta, self.first, self.second = found[0].requires_grad_(), found[1], found[2]

    def after(self, gradient: Sequence[Tensor], progress: ArrayLike) -> list[Tensor]:
        """The parameters as one step on ``gradient`` would leave them; the students stay as they are."""
        return [self._moved(gradient[0], progress)[0]]

    @torch.no_grad()
    def predict(self, inputs: Inputs, shared: bool = False) -> Tensor:
        """Logits ``[S*N, C]`` in evaluation mode; ``shared`` inputs ``[N, ...]`` are looked at by all students."""

        def logits(rows: np.ndarray) -> Tensor:
            everyone = np.repeat(rows, self.num_students // len(rows), axis=0).ravel()
            said = self.forward(take(inputs, everyone, self.device)).logits
            return said.view(self.num_students, -1, said.shape[1])

        with self.evaluating():
            return in_batches(logits, inputs, 1 if shared else self.num_students).flatten(0, 1)

    def evaluating(self) -> AbstractContextManager[None]:
        """Evaluation mode, where that makes a difference."""
        return evaluation_mode(self.network) if self._mode_matters else nullcontext()

    def evaluate(self, inputs: Inputs, labels: Tensor, shared: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """Mean cross-entropy and metric of each student, ``[S]`` each."""
        return scores(self.predict(inputs, shared), labels.to(self.device), self.num_students, self.metric)

    def preconditioner(self) -> list[Tensor | float]:
        """How the optimizer scales a gradient, ``[S, P]``; 1 for SGD and before a student's first step."""
        if self.options.name == "sgd":
            return [1.0]
        steps = self.steps.to(self.device)
        corrected = self.second / (1.0 - BETAS[1] ** steps.clamp_min(1.0)).to(self.dtype)
        return [torch.where(steps > 0, 1.0 / (corrected.sqrt() + EPS), 1.0)]

    def state(self) -> dict[str, Tensor]:
        """Weights and optimizer, by name."""
        return {**dict(self._matrices()), "steps": self.steps}

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        """Take over what :meth:`state` gave."""
        self.theta = tensors["theta"].to(self.device).requires_grad_()
        self.first, self.second, self.steps = tensors["first"].to(self.device), tensors["second"].to(self.device), tensors["steps"]

    @torch.no_grad()
    def state_of(self, student: int) -> dict[str, Tensor]:
        """One student's weights and optimizer, as :meth:`kd_env.student.student.Student.state` has them."""
        parts = {what: self._parts(matrix[student : student + 1]) for what, matrix in self._matrices()}
        tensors = {f"network.{name}": buffer for name, buffer in self.network.state_dict().items()}
        tensors |= {f"network.{name}": part[0] for name, part in parts["theta"].items()}
        if self.steps[student] == 0:
            return tensors
        for index, name in enumerate(self._shapes):
            if self.options.name == "sgd":
                tensors[f"optimizer.{index}.momentum_buffer"] = parts["first"][name][0]
            else:
                tensors[f"optimizer.{index}.exp_avg"] = parts["first"][name][0]
                tensors[f"optimizer.{index}.exp_avg_sq"] = parts["second"][name][0]
                tensors[f"optimizer.{index}.step"] = self.steps[student, 0].float()
        return {name: tensor.clone() for name, tensor in tensors.items()}

    def _matrices(self) -> list[tuple[str, Tensor]]:
        return [("theta", self.theta.detach()), ("first", self.first), ("second", self.second)]

    @torch.no_grad()
    def reset_student(self, student: int, network: nn.Module) -> None:
        """Put a new network in the place of one student; the others do not notice."""
        self.theta[student] = self._flat(network)
        for moment in (self.first, self.second, self.steps):
            moment[student] = 0.0

    def _flat(self, network: nn.Module) -> Tensor:
        return torch.cat([parameter.detach().flatten() for parameter in network.parameters()]).to(self.device, self.dtype)

    def _parts(self, theta: Tensor) -> dict[str, Tensor]:
        split = torch.split(theta, [shape.numel() for shape in self._shapes.values()], dim=1)
        return {name: part.view(-1, *shape) for (name, shape), part in zip(self._shapes.items(), split, strict=True)}

    def _call(self, theta: Tensor, inputs: Inputs, extra_outputs: frozenset[str]) -> ModelOutput:
        def one(parameters: dict[str, Tensor], own: Inputs) -> dict[str, Any]:
            output: ModelOutput = functional_call(
                self.network, parameters, kwargs={**own, **({"extra_outputs": extra_outputs} if extra_outputs else {})}
            )
            return {name: part for name, part in output._asdict().items() if isinstance(part, Tensor | tuple)}  # all that vmap can return

        grouped = {name: tensor.view(self.num_students, -1, *tensor.shape[1:]) for name, tensor in self.cast(inputs).items()}
        parts = vmap(one, randomness="different")(self._parts(theta), grouped)
        flat: dict[str, Any] = {}
        for name, part in parts.items():
            flat[name] = tuple(one.flatten(0, 1) for one in part) if isinstance(part, tuple) else part.flatten(0, 1)
        return ModelOutput(**flat)

    @torch.no_grad()
    def _moved(self, gradient: Tensor, progress: ArrayLike) -> list[Tensor]:
        """Parameters and moments after one step, ``[S, P]`` each."""
        rates = [self.options.rate(float(one)) for one in np.broadcast_to(progress, self.num_students)]
        rate = torch.tensor(rates, dtype=torch.float64)[:, None]  # [S, 1]
        decay, theta = self.options.weight_decay, self.theta.detach()
        if decay and self.options.name != "adamw":
            gradient = gradient + decay * theta
        if self.options.name == "sgd":
            first = MOMENTUM * self.first + gradient
            return [theta - rate.to(theta) * first, first, self.second]
        if decay and self.options.name == "adamw":
            theta = theta * (1.0 - rate * decay).to(theta)
        steps = self.steps + 1.0
        first = torch.lerp(self.first, gradient, 1.0 - BETAS[0])
        second = (BETAS[1] * self.second).addcmul_(gradient, gradient, value=1.0 - BETAS[1])
        spread = (second.sqrt() / (1.0 - BETAS[1] ** steps).sqrt().to(theta)).add_(EPS)
        return [theta - (rate / (1.0 - BETAS[0] ** steps)).to(theta) * (first / spread), first, second]


def refuse_what_does_not_batch(network: nn.Module) -> None:
    """Raise an input error that names what in ``network`` cannot run as a population."""
    for name, module in network.named_modules():
        if isinstance(module, nn.modules.batchnorm._NormBase):
            kind = type(module).__name__
            raise InputError(f"num_students: {name} is a {kind}, which mixes the examples of a batch; use LayerNorm or GroupNorm")
        attention = getattr(getattr(module, "config", None), "_attn_implementation", "eager")
        if attention != "eager":
            kind = type(module).__name__
            raise InputError(f'num_students: {kind} computes attention by {attention!r}; load it with attn_implementation="eager"')
