"""Train a population: S students of one architecture in one batched step. In: S networks. Out: their outputs, steps and evaluations.

The parameters of all students are one matrix ``[S, P]``. A forward pass is ``torch.func.vmap`` of the network over the rows. The optimizer
works on the whole matrix, with a step count and a learning rate per student.
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
from kd_env.models.classifier import linear_classifier
from kd_env.models.encode import evaluate_in_batches, take
from kd_env.models.modes import depends_on_mode, draws_in_training, evaluation_mode
from kd_env.student.evaluation import loss_and_metric
from kd_env.student.optimizer import MOMENTUM, OptimizerOptions
from kd_env.types import Inputs, ModelOutput

BETAS, EPS = (0.9, 0.999), 1e-8
"""Torch's defaults, which the optimizer of a single student uses."""


class Population:
    """S networks that learn in one batched step; :class:`~kd_env.student.protocol.Students` documents the methods.

    Without dropout, each network learns as a single :class:`~kd_env.student.student.Student`, up to rounding. With dropout, each row draws
    its own mask, from one generator for all networks.
    """

    def __init__(
        self,
        networks: Sequence[nn.Module],
        options: OptimizerOptions,
        device: torch.device,
        precision: str = "auto",
        metric: str = "accuracy",
    ) -> None:
        """Copy the weights of S networks of one architecture. The first network then runs with the weights of all.

        :class:`~kd_env.student.student.Student` describes ``precision`` and ``metric``.

        Raises:
            InputError: the networks mix examples, have attention without a batched form, or differ in their buffers.
        """
        self.device, self.options, self.metric, self.num_students = device, options, metric, len(networks)
        self.autocast = precision == "bfloat16" or (precision == "auto" and device.type == "cuda")
        self.dtype = torch.float64 if precision == "float64" else torch.float32
        self.network = networks[0].to(device, self.dtype)
        refuse_unbatched_layers(self.network)
        for network in networks[1:]:
            _require_same_buffers(self.network, network)
        self._shapes = {name: parameter.shape for name, parameter in self.network.named_parameters()}
        self.theta = torch.stack([self._flat(network) for network in networks]).requires_grad_()  # [S, P]
        self.first_moment = torch.zeros_like(self.theta)  # with SGD: the momentum
        self.second_moment = torch.zeros_like(self.theta)
        self.steps = torch.zeros(self.num_students, 1, dtype=torch.float64)
        self.has_dropout = draws_in_training(self.network)
        self._depends_on_mode = depends_on_mode(self.network)

    @property
    def parameters(self) -> list[Tensor]:
        """Matrix of all parameters, ``[S, P]``, as a list of one tensor."""
        return [self.theta]

    def forward(self, inputs: Inputs, extra_outputs: frozenset[str] = frozenset(), moves_statistics: bool = True) -> ModelOutput:
        """Run all students on their own rows, differentiable."""
        with torch.autocast(self.device.type, torch.bfloat16) if self.autocast else nullcontext():
            return self._call(self.theta, inputs, extra_outputs).to(self.dtype)

    def forward_at(self, parameters: Sequence[Tensor], inputs: Inputs, extra_outputs: frozenset[str] = frozenset()) -> ModelOutput:
        """Run all students with other parameters ``[S, P]``, without autocast."""
        return self._call(parameters[0], inputs, extra_outputs)

    def classify(self, features: Tensor, parameters: Sequence[Tensor]) -> Tensor:
        """Return the logits ``[rows, C]`` that classifiers with the values in ``parameters`` compute from features ``[rows, D]``."""
        parts = self._parts(parameters[0])
        names = {id(parameter): name for name, parameter in self.network.named_parameters()}
        weight, *bias = (parts[names[id(parameter)]] for parameter in linear_classifier(self.network).parameters())  # [S, C, D], [S, C]
        grouped, transposed = features.view(self.num_students, -1, features.shape[1]), weight.transpose(1, 2)
        logits = torch.baddbmm(bias[0][:, None], grouped, transposed) if bias else torch.bmm(grouped, transposed)
        return logits.flatten(0, 1)

    def cast(self, inputs: Inputs) -> Inputs:
        """Convert floating-point inputs to :attr:`dtype`; token ids are not changed."""
        return {name: tensor.to(self.dtype) if tensor.is_floating_point() else tensor for name, tensor in inputs.items()}

    def step(self, loss: Tensor, progress: ArrayLike, learns: ArrayLike = True) -> None:
        """Backpropagate ``loss``, the sum over students, and take one step with the students in ``learns`` (``[S]``)."""
        self.theta.grad = None
        loss.backward()  # type: ignore[no-untyped-call]
        assert self.theta.grad is not None
        matrices = self._stepped(self.theta.grad, progress)
        learning = torch.from_numpy(np.broadcast_to(np.asarray(learns, dtype=np.bool_), self.num_students).copy())[:, None]
        self.steps += learning
        if not learning.all():
            learning, before = learning.to(self.device), (self.theta.detach(), self.first_moment, self.second_moment)
            matrices = [torch.where(learning, new, old) for new, old in zip(matrices, before, strict=True)]
        self.theta, self.first_moment, self.second_moment = matrices[0].requires_grad_(), matrices[1], matrices[2]

    def after(self, gradient: Sequence[Tensor], progress: ArrayLike) -> list[Tensor]:
        """Return the parameters after a step on ``gradient``, without a change of the students."""
        return [self._stepped(gradient[0], progress)[0]]

    @torch.no_grad()
    def predict(self, inputs: Inputs, shared: bool = False) -> Tensor:
        """Return logits ``[S * N, C]`` in evaluation mode. If ``shared``, all students run on the same inputs ``[N, ...]``."""

        def run(rows: np.ndarray) -> Tensor:
            rows_of_all = np.repeat(rows, self.num_students // len(rows), axis=0).ravel()
            logits = self.forward(take(inputs, rows_of_all, self.device)).logits
            return logits.view(self.num_students, -1, logits.shape[1])

        with self.evaluating():
            return evaluate_in_batches(run, inputs, 1 if shared else self.num_students).flatten(0, 1)

    def evaluating(self) -> AbstractContextManager[None]:
        """Put the network into evaluation mode inside the context, if its outputs depend on the mode."""
        return evaluation_mode(self.network) if self._depends_on_mode else nullcontext()

    def evaluate(self, inputs: Inputs, labels: Tensor, shared: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """Return mean cross-entropy and metric, each ``[S]``."""
        return loss_and_metric(self.predict(inputs, shared), labels.to(self.device), self.num_students, self.metric)

    def preconditioner(self) -> list[Tensor | float]:
        """Return the factor of the optimizer on a gradient, ``[S, P]``, or a number for SGD; 1 before a student's first step of Adam."""
        if self.options.name == "sgd":
            return [self.options.gradient_factor]
        steps = self.steps.to(self.device)
        corrected = self.second_moment / (1.0 - BETAS[1] ** steps.clamp_min(1.0)).to(self.dtype)
        return [torch.where(steps > 0, 1.0 / (corrected.sqrt() + EPS), 1.0)]

    def state(self) -> dict[str, Tensor]:
        """Return the weights and the optimizer state by name."""
        return {**dict(self._matrices()), "steps": self.steps}

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        """Load a copy of the state that :meth:`state` returned."""
        theta, self.first_moment, self.second_moment = (tensors[name].to(self.device, copy=True) for name in ("theta", "first", "second"))
        self.theta = theta.requires_grad_()
        self.steps = tensors["steps"].clone()

    @torch.no_grad()
    def state_of(self, student: int) -> dict[str, Tensor]:
        """Return a copy of one student's weights and optimizer state, which a single student can load."""
        parts = {matrix: self._parts(values[student : student + 1]) for matrix, values in self._matrices()}
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
        return [("theta", self.theta.detach()), ("first", self.first_moment), ("second", self.second_moment)]

    @torch.no_grad()
    def reset_student(self, student: int, network: nn.Module) -> None:
        """Replace one student by ``network`` with a new optimizer state; the other students do not change.

        Raises:
            InputError: the buffers of ``network`` differ from the population's buffers.
        """
        _require_same_buffers(self.network, network)
        self.theta[student] = self._flat(network)
        for moment in (self.first_moment, self.second_moment, self.steps):
            moment[student] = 0.0

    def _flat(self, network: nn.Module) -> Tensor:
        return torch.cat([parameter.detach().flatten() for parameter in network.parameters()]).to(self.device, self.dtype)

    def _parts(self, theta: Tensor) -> dict[str, Tensor]:
        split = torch.split(theta, [shape.numel() for shape in self._shapes.values()], dim=1)
        return {name: part.view(-1, *shape) for (name, shape), part in zip(self._shapes.items(), split, strict=True)}

    def _call(self, theta: Tensor, inputs: Inputs, extra_outputs: frozenset[str]) -> ModelOutput:
        def run(parameters: dict[str, Tensor], inputs: Inputs) -> dict[str, Any]:
            arguments = {**inputs, **({"extra_outputs": extra_outputs} if extra_outputs else {})}
            output: ModelOutput = functional_call(self.network, parameters, kwargs=arguments)
            return output.as_dict()

        grouped = {name: tensor.view(self.num_students, -1, *tensor.shape[1:]) for name, tensor in self.cast(inputs).items()}
        outputs = vmap(run, randomness="different")(self._parts(theta), grouped)  # each [S, B, ...]
        return ModelOutput(**outputs).map(lambda tensor: tensor.flatten(0, 1))

    @torch.no_grad()
    def _stepped(self, gradient: Tensor, progress: ArrayLike) -> list[Tensor]:
        """Return the parameters and both moments after one step, each ``[S, P]``."""
        rates = [self.options.rate(float(value)) for value in np.broadcast_to(progress, self.num_students)]
        rate = torch.tensor(rates, dtype=torch.float64)[:, None]  # [S, 1]
        decay, theta = self.options.weight_decay, self.theta.detach()
        if decay and self.options.name != "adamw":
            gradient = gradient + decay * theta
        if self.options.name == "sgd":
            first = MOMENTUM * self.first_moment + gradient
            step = gradient + MOMENTUM * first if self.options.nesterov else first
            return [theta - rate.to(theta) * step, first, self.second_moment]
        if decay and self.options.name == "adamw":
            theta = theta * (1.0 - rate * decay).to(theta)
        steps = self.steps + 1.0
        first = torch.lerp(self.first_moment, gradient, 1.0 - BETAS[0])
        second = (BETAS[1] * self.second_moment).addcmul_(gradient, gradient, value=1.0 - BETAS[1])
        spread = (second.sqrt() / (1.0 - BETAS[1] ** steps).sqrt().to(theta)).add_(EPS)
        return [theta - (rate / (1.0 - BETAS[0] ** steps)).to(theta) * (first / spread), first, second]


def refuse_unbatched_layers(network: nn.Module) -> None:
    """Check that all layers of a network can run in a population.

    Raises:
        InputError: a layer cannot; the message names it.
    """
    for name, module in network.named_modules():
        if isinstance(module, nn.modules.batchnorm._NormBase):
            kind = type(module).__name__
            raise InputError(
                f"num_students: {name} is a {kind}, which mixes the examples of a batch; use LayerNorm or GroupNorm, or num_students=1"
            )
        attention = getattr(getattr(module, "config", None), "_attn_implementation", "eager")
        if attention != "eager":
            kind = type(module).__name__
            raise InputError(f'num_students: {kind} computes attention by {attention!r}; load it with attn_implementation="eager"')


def _require_same_buffers(network: nn.Module, other: nn.Module) -> None:
    """Check that two networks have equal buffers, since the students of a population share the buffers of the first network."""
    buffers = dict(network.named_buffers())
    for name, buffer in other.named_buffers():
        if not torch.equal(buffer.to(buffers[name]), buffers[name]):
            raise InputError(
                f"num_students: buffer {name} of a {type(network).__name__} differs between students, but they share their buffers; make "
                "it equal for all seeds, or make it a parameter"
            )
