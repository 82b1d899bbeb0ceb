"""Credit that a policy computes for itself. In: labels that it has. Out: credit of each teacher, by knowledge type."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kd_env.distillation import Distillation
from kd_env.distillation.reward_meter import RewardMeter
from kd_env.envs.credit import CreditByType, first_order


def first_order_on(
    positions: np.ndarray, run: Distillation, meter: RewardMeter, names: Sequence[str], credit_is_paid: bool
) -> CreditByType:
    """Return first-order credit of the labels at ``positions [n]``, without an effect on the credit that the environment pays.

    If the environment pays credit, or the positions are not all labels of ``meter``, the gradient is a new one, of a meter of its own. Of
    ``meter``, only the number of forward passes then changes.
    """
    if not credit_is_paid and np.array_equal(positions, meter.split.positions[0]):
        return first_order(run, meter, names)
    own_meter = meter.with_positions(positions)
    credit = first_order(run, own_meter, names)
    meter.state.forward_examples += own_meter.state.forward_examples
    return credit
