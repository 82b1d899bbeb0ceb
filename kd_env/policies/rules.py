"""Turn rules into policies. In: a rule, which decides about a mini-batch. Out: a policy, which acts on an observation."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from kd_env.errors import InputError
from kd_env.policies.context import PolicyContext
from kd_env.policies.protocol import Rule
from kd_env.types import Decision, Observation


class RulePolicy:
    """Calls a rule with the mini-batch about to be taught, and turns its weights into actions."""

    def __init__(self, rule: Rule, context: PolicyContext) -> None:
        """Take the rule and the context that it was built with."""
        self.rule, self.context = rule, context
        self.access = context.access

    def act(self, observation: Observation) -> np.ndarray | Decision:
        """Return what the rule decides. It reads the mini-batch and not the observation, which is clipped."""
        decided = self.rule.decide(self.context.batch())
        if isinstance(decided, Decision):
            return decided
        if not isinstance(decided, Tensor) or not decided.ndim:
            raise InputError(f"policy {self.context.name!r}: decide() returned a {type(decided).__name__}, expected a tensor or a Decision")
        if decided.is_complex():
            raise InputError(f"policy {self.context.name!r}: decide() returned complex numbers; return real weights")
        slots = len(observation["progress"])
        if len(decided) != slots:
            raise InputError(f"policy {self.context.name!r}: decide() returned weights for {len(decided)} slots, expected {slots}")
        if decided.ndim != 2:
            shape = tuple(decided.shape)
            raise InputError(
                f"policy {self.context.name!r}: decide() returned weights of shape {shape}; return one row per slot, [rows, K]"
            )
        weights = (decided.float() if decided.dtype is torch.bfloat16 else decided).detach().cpu().numpy()  # NumPy has no bfloat16
        if not np.isfinite(weights).all() and not self.context._student_diverges():
            raise InputError(f"policy {self.context.name!r}: decide() returned weights with NaN or infinite numbers; return finite ones")
        try:
            return self.context.action.encode(weights)
        except InputError as error:
            raise InputError(f"policy {self.context.name!r}: {error}") from None

    def selection_entropy(self, observation: Observation) -> np.ndarray | None:
        """Return the entropy of the rule's selection probabilities ``[num_envs]``; ``None`` if it has none."""
        entropy = getattr(self.rule, "selection_entropy", None)
        return None if entropy is None else np.asarray(entropy(observation))
