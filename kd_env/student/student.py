"""The student: a network, its optimizer and its learning-rate schedule.

In: encoded inputs and a loss. Out: a :class:`~kd_env.types.ModelOutput`, one optimizer step, or an evaluation.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy, linear

from kd_env.errors import InputError
from kd_env.models.encode import in_batches, take
from kd_env.student.optimizer import OptimizerOptions
from kd_env.tasks.metrics import METRICS
from kd_env.types import Inputs, ModelOutput

_ALIKE = (nn.Linear, nn.Embedding, nn.LayerNorm, nn.ReLU, nn.GELU, nn.Tanh)
"""Modules that do the same in training and in evaluation mode."""


class Student:
    """A network that learns, one step at a time: the population of one. ``Population`` has the same methods for S networks.

    Rows of inputs and outputs are those of student 0, then of student 1 and so on; numbers a student come as ``[S]``.
    """

    num_students = 1

    def __init__(
        self, network: nn.Module, options: OptimizerOptions, device: torch.device, precision: str = "auto", metric: str = "accuracy"
    ) -> None:
        """Move ``network`` to ``device``.

        Args:
            metric: what :meth:`evaluate` measures besides the loss, a name of :data:`kd_env.tasks.metrics.METRICS`.
            precision: ``float32``, ``float64``, ``bfloat16`` (autocast), or ``auto``: bfloat16 on CUDA, else float32.
        """
        self.device = device
        self.autocast = precision == "bfloat16" or (precision == "auto" and device.type == "cuda")
        self.dtype = torch.float64 if precision == "float64" else torch.float32
        self.network = network.to(device, self.dtype)
        self.options, self.metric = options, metric
        self.optimizer = options.build(network)
        self.has_dropout = any(isinstance(module, nn.Dropout) and module.p > 0 for module in network.modules())
        self._mode_matters = mode_matters(network)

    @property
    def parameters(self) -> list[Tensor]:
        """What is learned, the tensors to differentiate by."""
        return list(self.network.parameters())

    @property
    def classifier(self) -> nn.Linear:
        """The last layer, from features to logits."""
        head = self.network.classifier
        assert isinstance(head, nn.Linear), "a student's network ends in a linear classifier"
        return head

    def forward(self, inputs: Inputs, extra_outputs: frozenset[str] = frozenset()) -> ModelOutput:
        """One pass; outputs are in full precision whatever the body ran in. ``show``: ``layers``, ``attention``."""
        with torch.autocast(self.device.type, torch.bfloat16) if self.autocast else nullcontext():
            output: ModelOutput = self.network(**self.cast(inputs), **({"extra_outputs": extra_outputs} if extra_outputs else {}))
        return in_full_precision(output, self.dtype)

    def forward_at(self, parameters: Sequence[Tensor], inputs: Inputs, extra_outputs: frozenset[str] = frozenset()) -> ModelOutput:
        """One pass with ``leaves`` (dual numbers, say) in place of the student's own; autocast off."""
        named = dict(zip((name for name, _ in self.network.named_parameters()), parameters, strict=True))
        output: ModelOutput = functional_call(
            self.network, named, kwargs={**self.cast(inputs), **({"extra_outputs": extra_outputs} if extra_outputs else {})}
        )
        return output

    def classify(self, features: Tensor, parameters: Sequence[Tensor]) -> Tensor:
        """The last layer of ``leaves`` alone: features ``[rows, D]`` -> logits ``[rows, C]``."""
        substitute = {id(own): other for own, other in zip(self.parameters, parameters, strict=True)}
        return linear(features, *(substitute[id(parameter)] for parameter in self.classifier.parameters()))

    def cast(self, inputs: Inputs) -> Inputs:
        """Floating inputs in the network's type; ids as they are."""
        return {name: tensor.to(self.dtype) if tensor.is_floating_point() else tensor for name, tensor in inputs.items()}

    def step(self, loss: Tensor, progress: ArrayLike, learns: ArrayLike = True) -> None:
        """Backpropagate ``loss`` (a scalar, the sum over students) and take one step at the rate for ``progress`` ``[S]``."""
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        for group in self.optimizer.param_groups:
            group["lr"] = self.options.rate(float(np.squeeze(progress)))
            for parameter in group["params"]:
                if parameter.grad is None:  # the loss does not reach it; momentum and decay go on, as in a population
                    parameter.grad = torch.zeros_like(parameter)
        self.optimizer.step()

    def after(self, gradient: Sequence[Tensor], progress: ArrayLike) -> list[Tensor]:
        """The leaves as one step on ``gradient`` would leave them; the student stays as it is."""
        twin = copy.deepcopy(self.network)
        optimizer = self.options.build(twin)
        optimizer.load_state_dict(copy.deepcopy(self.optimizer.state_dict()))
        for parameter, value in zip(twin.parameters(), gradient, strict=True):
            parameter.grad = value
        for group in optimizer.param_groups:
            group["lr"] = self.options.rate(float(np.squeeze(progress)))
        optimizer.step()
        return [parameter.detach() for parameter in twin.parameters()]

    @torch.no_grad()
    def predict(self, inputs: Inputs, shared: bool = False) -> Tensor:
        """Logits ``[N, C]`` in evaluation mode (no dropout); ``shared`` says that all students look at the same inputs."""
        with self.evaluating():
            return in_batches(lambda rows: self.forward(take(inputs, rows[0], self.device)).logits[None], inputs)[0]

    def evaluating(self) -> AbstractContextManager[None]:
        """Evaluation mode, where that makes a difference."""
        return evaluation_mode(self.network) if self._mode_matters else nullcontext()

    def evaluate(self, inputs: Inputs, labels: Tensor, shared: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """Mean cross-entropy and metric of each student, ``[S]`` each."""
        return scores(self.predict(inputs, shared), labels.to(self.device), self.num_students, self.metric)

    def preconditioner(self) -> list[Tensor | float]:
        """How the optimizer scales a gradient, per leaf: ``1 / (sqrt(v_hat) + eps)`` for Adam, 1 for SGD and before the first step."""
        scales: list[Tensor | float] = []
        for group in self.optimizer.param_groups:
            for parameter in group["params"]:
                state = self.optimizer.state.get(parameter, {})
                if "exp_avg_sq" not in state:
                    scales.append(1.0)
                    continue
                corrected = state["exp_avg_sq"] / (1.0 - group["betas"][1] ** float(state["step"]))
                scales.append(corrected.sqrt_().add_(group["eps"]).reciprocal_())  # in place: memory is what this costs
        return scales

    def state(self) -> dict[str, Tensor]:
        """Weights and optimizer, by name."""
        tensors = {f"network.{name}": tensor for name, tensor in self.network.state_dict().items()}
        for index, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{name}": tensor for name, tensor in state.items() if tensor is not None}
        return tensors

    def state_of(self, student: int) -> dict[str, Tensor]:
        """Return the state of one student; there is one."""
        return self.state()

    def reset_student(self, student: int, network: nn.Module) -> None:
        """Put a new network in the place of the student's."""
        self.network = network.to(self.device, self.dtype)
        self.optimizer = self.options.build(network)

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        """Take over what :meth:`state` gave."""
        network = {name.removeprefix("network."): tensor for name, tensor in tensors.items() if name.startswith("network.")}
        self.network.load_state_dict(network)
        optimizer: dict[int, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            if name.startswith("optimizer."):
                _, index, key = name.split(".", 2)
                optimizer.setdefault(int(index), {})[key] = tensor
        self.optimizer.load_state_dict({"state": optimizer, "param_groups": self.optimizer.state_dict()["param_groups"]})


def scores(logits: Tensor, labels: Tensor, num_students: int, metric: str = "accuracy") -> tuple[np.ndarray, np.ndarray]:
    """Mean cross-entropy and metric of S students, ``[S]`` each, from logits ``[S*N, C]``; labels ``[S*N]``, or ``[N]`` for all alike."""
    if len(labels) < len(logits):
        labels = labels.repeat(num_students)
    if num_students == 1:
        loss = cross_entropy(logits, labels)[None]
    else:
        loss = cross_entropy(logits, labels, reduction="none").view(num_students, -1).mean(1)
    if metric != "accuracy":
        said, true = (one.view(num_students, -1).cpu().numpy() for one in (logits.argmax(1), labels))
        found = [METRICS[metric](*pair, logits.shape[1]) for pair in zip(said, true, strict=True)]
        return loss.double().cpu().numpy(), np.array(found)
    accuracy = (logits.argmax(1) == labels).to(logits.dtype).view(num_students, -1).mean(1)
    values = torch.stack([loss, accuracy]).double().cpu().numpy()  # one copy off the device
    return values[0], values[1]


def in_full_precision(output: ModelOutput, dtype: torch.dtype) -> ModelOutput:
    """All parts of ``output`` in ``dtype``."""
    return output.map(lambda part: part.to(dtype))


@contextmanager
def evaluation_mode(network: nn.Module) -> Iterator[None]:
    """``network`` in evaluation mode within, in training mode after."""
    network.eval()
    try:
        yield
    finally:
        network.train()


def mode_matters(network: nn.Module) -> bool:
    """Whether ``network`` may do something else in evaluation mode than in training mode."""
    return any(list(module.children()) == [] and not isinstance(module, _ALIKE) for module in network.modules())


def pick_device(name: str) -> torch.device:
    """``auto`` is CUDA where there is one, else the CPU.

    Raises:
        InputError: a device that torch does not know or that is not here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(f"device={name!r}: expected auto, cpu, cuda or cuda:N") from None
    if device.type not in ("cpu", "cuda") or (device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count()):
        raise InputError(f"device={name!r} is not available here; use device=auto or cpu")
    return device
