"""Networks of one shape that pass and learn together, for the policies of a population.

In: S networks, and the Adam optimizer of each. Out: outputs of all in one batched pass, and one step of all optimizers at once.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from kd_env.policies.protocol import NotStackable
from kd_env.types import Observation

MOMENTS = ("exp_avg", "exp_avg_sq")
"""Tensors of Adam's state that have the shape of the parameter."""


class NetworkStack:
    """S networks, computed with stacked parameters ``[S, ...]``.

    While they are stacked, the parameters, buffers and moments of each network are views of the stacked ones, so that it can be saved at
    any time. Outputs and steps are those of separate networks up to rounding.

    Attributes:
        parameters: stacked parameters by name.
        buffers: stacked buffers by name.
    """

    def __init__(self, networks: Sequence[nn.Module], optimizers: Sequence[torch.optim.Adam] = ()) -> None:
        """Stack the networks.

        Args:
            networks: modules of one class and shape. They must not learn alone until :meth:`separate` is called.
            optimizers: the optimizer of each network, over all its parameters. Without them, the stack does not learn.

        Raises:
            NotStackable: the optimizers have different options, or have made different numbers of steps, which a stack counts once for all.
        """
        if any(_options_and_steps(optimizer) != _options_and_steps(optimizers[0]) for optimizer in optimizers):
            raise NotStackable
        self._networks, self._optimizers = networks, optimizers
        self._skeleton = copy.deepcopy(networks[0]).to("meta")
        self.parameters, self.buffers = stack_module_state(list(networks))
        for number, network in enumerate(networks):
            for name, parameter in network.named_parameters():
                parameter.data = self.parameters[name].data[number]
            _replace_buffers(network, {name: buffer[number] for name, buffer in self.buffers.items()})
        self._optimizer = self._stacked_optimizer() if optimizers else None

    def __call__(self, *inputs: Tensor | Mapping[str, Tensor]) -> Tensor:
        """Return the outputs ``[S, ...]`` of the networks for inputs ``[S, ...]``."""

        def network(parameters: Mapping[str, Tensor], buffers: Mapping[str, Tensor], *inputs: Tensor | Mapping[str, Tensor]) -> Tensor:
            output: Tensor = functional_call(self._skeleton, (dict(parameters), dict(buffers)), inputs)
            return output

        outputs: Tensor = vmap(network)(self.parameters, self.buffers, *inputs)
        return outputs

    def maximise(self, values: Tensor, clip: Callable[[dict[str, Tensor]], dict[str, Tensor]] = lambda gradients: gradients) -> None:
        """Take one step of each optimizer towards a larger value of its network.

        Args:
            values: what each network maximises, ``[S]``.
            clip: changes the gradients ``[S, ...]`` by the names of the parameters. Parameters that it leaves out take no step.
        """
        assert self._optimizer is not None
        gradients = dict(zip(self.parameters, torch.autograd.grad(-values.sum(), list(self.parameters.values())), strict=True))
        clipped = clip(gradients)
        for name, parameter in self.parameters.items():
            parameter.grad = clipped.get(name)
        self._optimizer.step()

    def separate(self) -> None:
        """Give each network and optimizer tensors of its own; the stack must not be used any more."""
        for network in self._networks:
            for parameter in network.parameters():
                parameter.data = parameter.data.clone()
            _replace_buffers(network, {name: buffer.clone() for name, buffer in network.named_buffers()})
        for optimizer in self._optimizers:
            for state in optimizer.state.values():
                state.update({name: value.clone() for name, value in state.items()})

    def _stacked_optimizer(self) -> torch.optim.Adam:
        """Return an Adam over the stacked parameters, whose state the separate optimizers share."""
        stacked = torch.optim.Adam(self.parameters.values(), **_options_and_steps(self._optimizers[0])[0])
        for name, parameter in self.parameters.items():
            of_networks = [network.get_parameter(name) for network in self._networks]
            states = [_adam_state(optimizer, of_one) for optimizer, of_one in zip(self._optimizers, of_networks, strict=True)]
            state: dict[str, Any] = {moment: torch.stack([each[moment] for each in states]) for moment in MOMENTS}
            state["step"] = states[0]["step"].clone()
            stacked.state[parameter] = state
            for number, of_one in enumerate(states):
                of_one |= {moment: state[moment][number] for moment in MOMENTS} | {"step": state["step"]}
        return stacked


def split_students(values: np.ndarray, size: int) -> Tensor:
    """Return values of all slots of ``size`` students, ``[S * B, ...]``, as ``[S, B, ...]``."""
    return torch.from_numpy(values).view(size, -1, *values.shape[1:])


def split_observation(observation: Observation, size: int) -> dict[str, Tensor]:
    """Return the blocks of an observation of ``size`` students, each as ``[S, B, F]``."""
    return {name: split_students(block, size) for name, block in observation.items()}


def clipped_each(gradients: Mapping[str, Tensor], max_norm: float) -> dict[str, Tensor]:
    """Scale the gradients ``[S, ...]`` of each network to a norm of at most ``max_norm``, as :func:`torch.nn.utils.clip_grad_norm_`."""
    norms = torch.stack([torch.linalg.vector_norm(gradient.flatten(1), dim=1) for gradient in gradients.values()], 1)  # [S, parameters]
    factors = (max_norm / (torch.linalg.vector_norm(norms, dim=1) + 1e-6)).clamp(max=1.0)
    return {name: gradient * factors.view(-1, *[1] * (gradient.ndim - 1)) for name, gradient in gradients.items()}


def _options_and_steps(optimizer: torch.optim.Adam) -> tuple[dict[str, Any], list[float]]:
    """Return the options of an optimizer of one group, and the number of steps of each parameter."""
    (group,) = optimizer.param_groups
    options = {name: value for name, value in group.items() if name != "params"}
    return options, [float(optimizer.state[parameter].get("step", 0.0)) for parameter in group["params"]]


def _adam_state(optimizer: torch.optim.Adam, parameter: nn.Parameter) -> dict[str, Any]:
    """Return the state of a parameter, also of one that has made no step."""
    state: dict[str, Any] = optimizer.state[parameter]
    if not state:
        state |= {"step": torch.tensor(0.0)} | {moment: torch.zeros_like(parameter) for moment in MOMENTS}
    return state


def _replace_buffers(network: nn.Module, buffers: Mapping[str, Tensor]) -> None:
    for name, buffer in buffers.items():
        module, _, attribute = name.rpartition(".")
        setattr(network.get_submodule(module), attribute, buffer)
