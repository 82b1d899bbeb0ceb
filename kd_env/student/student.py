"""Train one student: a network, its optimizer and its schedule. In: encoded inputs and a loss. Out: outputs, steps, evaluations."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import linear

from kd_env.models.classifier import linear_classifier
from kd_env.models.encode import evaluate_in_batches, take
from kd_env.models.modes import depends_on_mode, draws_in_training, evaluation_mode, running_statistics
from kd_env.serialization import add_prefix, with_prefix
from kd_env.student.data_parallel import Processes, Run
from kd_env.student.evaluation import loss_and_metric
from kd_env.student.optimizer import OptimizerOptions, load_optimizer, optimizer_tensors
from kd_env.types import Inputs, ModelOutput


class Student:
    """One network that learns; :class:`~kd_env.student.protocol.Students` documents the methods.

    A pass changes nothing, so that it can be repeated. Running statistics (BatchNorm) change only at a step, which stores the statistics of
    the last pass of :meth:`forward` in training mode with ``moves_statistics``.
    """

    num_students = 1
    _new_statistics: dict[str, Tensor]

    def __init__(
        self,
        network: nn.Module,
        options: OptimizerOptions,
        device: torch.device,
        precision: str = "auto",
        metric: str = "accuracy",
        processes: Processes | None = None,
    ) -> None:
        """Move ``network`` to ``device``.

        Args:
            network: network to train.
            options: optimizer and schedule.
            device: device of the weights.
            precision: number format: ``float32``, ``float64``, ``bfloat16`` (autocast), or ``auto`` (bfloat16 on CUDA, else float32).
            metric: name in :data:`kd_env.tasks.metrics.METRICS`, which :meth:`evaluate` measures besides the loss.
            processes: processes that share the passes of :meth:`forward`; ``None`` if this one runs alone.
        """
        self._processes = processes
        self.device = device
        self.autocast = precision == "bfloat16" or (precision == "auto" and device.type == "cuda")
        self.dtype = torch.float64 if precision == "float64" else torch.float32
        self.options, self.metric = options, metric
        self.reset_student(0, network)
        self.has_dropout = draws_in_training(network)
        self._depends_on_mode = depends_on_mode(network)
        self._statistics = running_statistics(network)

    @property
    def parameters(self) -> list[Tensor]:
        """Parameters of the network."""
        return list(self.network.parameters())

    @property
    def classifier(self) -> nn.Linear:
        """Linear layer from features to logits; raises ``InputError`` if the network has none."""
        return linear_classifier(self.network)

    def forward(self, inputs: Inputs, extra_outputs: frozenset[str] = frozenset(), moves_statistics: bool = True) -> ModelOutput:
        """Run the network on ``inputs``, differentiable."""
        inputs = self.cast(inputs)
        with torch.autocast(self.device.type, torch.bfloat16) if self.autocast else nullcontext():
            if self._processes is not None:
                parameters = self._processes.summed(dict(self.network.named_parameters()))
                output = self._processes.forward(self._run_at(parameters, extra_outputs), inputs, self._draws_on())
            elif not self._statistics or not self.network.training:
                output = self.network(**_arguments(inputs, extra_outputs))
            else:
                statistics = self._copy_statistics()
                output = functional_call(self.network, statistics, kwargs=_arguments(inputs, extra_outputs))
                self._new_statistics = statistics if moves_statistics else self._new_statistics
        return output.to(self.dtype)

    def forward_at(self, parameters: Sequence[Tensor], inputs: Inputs, extra_outputs: frozenset[str] = frozenset()) -> ModelOutput:
        """Run the network with ``parameters`` in place of its own, without autocast. Each process runs all rows."""
        run = self._run_at(dict(zip((name for name, _ in self.network.named_parameters()), parameters, strict=True)), extra_outputs)
        if self._processes is not None and (device := self._draws_on()) is not None:
            return self._processes.forward_alone(run, self.cast(inputs), device)
        return run(self.cast(inputs))

    def classify(self, features: Tensor, parameters: Sequence[Tensor]) -> Tensor:
        """Return the logits ``[B, C]`` that a classifier with the values in ``parameters`` computes from features ``[B, D]``."""
        substitutes = {id(parameter): other for parameter, other in zip(self.parameters, parameters, strict=True)}
        return linear(features, *(substitutes[id(parameter)] for parameter in self.classifier.parameters()))

    def cast(self, inputs: Inputs) -> Inputs:
        """Convert floating-point inputs to :attr:`dtype`; token ids are not changed."""
        return {name: tensor.to(self.dtype) if tensor.is_floating_point() else tensor for name, tensor in inputs.items()}

    def step(self, loss: Tensor, progress: ArrayLike, learns: ArrayLike = True) -> None:
        """Backpropagate ``loss`` and take one step at the learning rate for ``progress``."""
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        for group in self.optimizer.param_groups:
            group["lr"] = self.options.rate(float(np.squeeze(progress)))
            for parameter in group["params"]:
                if parameter.grad is None:  # the loss does not depend on it; momentum and decay apply, as in a population
                    parameter.grad = torch.zeros_like(parameter)
        self.optimizer.step()
        for name, value in self._new_statistics.items():
            self.network.get_buffer(name).copy_(value)
        self._new_statistics = {}

    def after(self, gradient: Sequence[Tensor], progress: ArrayLike) -> list[Tensor]:
        """Return the parameters after a step on ``gradient``, without a change of the student."""
        stepped = copy.deepcopy(self.network)
        optimizer = self.options.build(stepped)
        optimizer.load_state_dict(copy.deepcopy(self.optimizer.state_dict()))
        for parameter, value in zip(stepped.parameters(), gradient, strict=True):
            parameter.grad = value
        for group in optimizer.param_groups:
            group["lr"] = self.options.rate(float(np.squeeze(progress)))
        optimizer.step()
        return [parameter.detach() for parameter in stepped.parameters()]

    @torch.no_grad()
    def predict(self, inputs: Inputs, shared: bool = False) -> Tensor:
        """Return logits ``[N, C]`` in evaluation mode."""
        with self.evaluating():
            return evaluate_in_batches(lambda rows: self.forward(take(inputs, rows[0], self.device)).logits[None], inputs)[0]

    def evaluating(self) -> AbstractContextManager[None]:
        """Put the network into evaluation mode inside the context, if its outputs depend on the mode."""
        return evaluation_mode(self.network) if self._depends_on_mode else nullcontext()

    def evaluate(self, inputs: Inputs, labels: Tensor, shared: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """Return mean cross-entropy and metric, each ``[1]``."""
        return loss_and_metric(self.predict(inputs, shared), labels.to(self.device), self.num_students, self.metric)

    def preconditioner(self) -> list[Tensor | float]:
        """Return the factor of the optimizer on each parameter's gradient, without the learning rate."""
        scales: list[Tensor | float] = []
        for group in self.optimizer.param_groups:
            for parameter in group["params"]:
                state = self.optimizer.state.get(parameter, {})
                if "exp_avg_sq" not in state:
                    scales.append(self.options.gradient_factor)
                    continue
                corrected = state["exp_avg_sq"] / (1.0 - group["betas"][1] ** float(state["step"]))
                scales.append(corrected.sqrt_().add_(group["eps"]).reciprocal_())  # in place to save memory
        return scales

    def state(self) -> dict[str, Tensor]:
        """Return the weights and the optimizer state by name."""
        return {**add_prefix(self.network.state_dict(), "network"), **add_prefix(optimizer_tensors(self.optimizer), "optimizer")}

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        """Load a copy of the state that :meth:`state` returned."""
        self.network.load_state_dict(with_prefix(tensors, "network"))
        load_optimizer(self.optimizer, with_prefix(tensors, "optimizer"))
        self._new_statistics = {}

    def state_of(self, student: int) -> dict[str, Tensor]:
        """Return a copy of :meth:`state`; ``student`` must be 0."""
        assert student == 0
        return {name: tensor.clone() for name, tensor in self.state().items()}

    def reset_student(self, student: int, network: nn.Module) -> None:
        """Replace the network by ``network``, with a new optimizer state; ``student`` must be 0."""
        assert student == 0
        self.network = network.to(self.device, self.dtype)
        self.optimizer = self.options.build(network)
        self._new_statistics = {}

    def _run_at(self, parameters: dict[str, Tensor], extra_outputs: frozenset[str]) -> Run:
        """Return a function that runs the network with ``parameters`` in place of its own, by name."""

        def run(inputs: Inputs) -> ModelOutput:
            output: ModelOutput = functional_call(
                self.network, {**parameters, **self._copy_statistics()}, kwargs=_arguments(inputs, extra_outputs)
            )
            return output

        return run

    def _draws_on(self) -> torch.device | None:
        """Return the device on which a pass draws random numbers now; ``None`` if it draws none."""
        return self.device if self.has_dropout and self.network.training else None

    def _copy_statistics(self) -> dict[str, Tensor]:
        return {name: self.network.get_buffer(name).clone() for name in self._statistics}


def _arguments(inputs: Inputs, extra_outputs: frozenset[str]) -> dict[str, Tensor | frozenset[str]]:
    return {**inputs, **({"extra_outputs": extra_outputs} if extra_outputs else {})}
