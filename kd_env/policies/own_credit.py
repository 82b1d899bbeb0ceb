"""Compute credit for a policy that asks for it. In: labels that it has. Out: credit of each teacher, by knowledge type."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kd_env.distillation.reward_meter import RewardMeter
from kd_env.envs.credit import CreditByType, first_order
from kd_env.envs.selection import Selection
from kd_env.policies.access import LABELS, require


def own_credit(selection: Selection, positions: np.ndarray, names: Sequence[str], policy: str, access: str) -> CreditByType:
    """Return first-order credit of the labels at ``positions [n]``, without an effect on the credit that the environment pays.

    If the environment also computes credit, or ``positions`` are not exactly the labels of the students, a separate reward meter computes
    the gradient. Its forward passes are added to the count of the environment's meter.

    Raises:
        InputError: there is no such knowledge type, or it compares training labels, and ``access`` of the policy does not include these.
    """
    run, meter = selection.distillation, selection.meter
    for name in names:
        if name == "label" or (name in run.loss.terms and run.loss.terms[name].knowledge.reads_labels):
            require(policy, access, f"context.credit([{name!r}])", LABELS)
    if selection.credit_function is None and np.array_equal(positions, meter.split.positions[0]):
        return first_order(run, meter, names)
    split = meter.split.with_positions(np.tile(positions, (run.num_students, 1)))
    own_meter = RewardMeter(split, run.seeds.tolist(), meter.examples, meter.measure)
    credit = first_order(run, own_meter, names)
    meter.state.forward_examples += own_meter.state.forward_examples
    return credit
