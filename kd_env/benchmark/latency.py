"""Measure how long a network takes for one example. In: a function, or encoded inputs. Out: milliseconds, or one row.

Times are of the network alone, without a tokenizer or an image reader, on this machine.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch

from kd_env.models.encode import take
from kd_env.types import Inputs

RUNS = 31
"""Number of runs of which the median is taken; an odd number, so that the median is one of the times."""
WARM_UP = 3
"""Number of runs before them, which are not counted."""


def median_milliseconds(run: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> float:
    """Return the median time of a call of ``run`` in milliseconds.

    Args:
        run: the function.
        clock: function that returns the time in seconds.
    """
    for _ in range(WARM_UP):
        run()
    times = []
    for _ in range(RUNS):
        started = clock()
        run()
        times.append(clock() - started)
    return 1000.0 * float(np.median(times))


def longest_example(inputs: Inputs) -> Inputs:
    """Return the text with the most tokens, without padding, or the first image, as a batch of one row; of equal lengths the first."""
    row = int(inputs["attention_mask"].sum(1).argmax()) if "attention_mask" in inputs else 0
    example = take(inputs, slice(row, row + 1), torch.device("cpu"))
    if "attention_mask" in example:
        length = int(example["attention_mask"].sum())
        example = {name: tensor[:, :length] for name, tensor in example.items()}
    return example
