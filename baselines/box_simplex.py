"""The shortest vector among bounded mixtures: ``min |sum_k a_k g_k|^2`` over ``sum a = 1``, ``0 <= a <= bound``.

In: the Gram matrix of K vectors. Out: the mixture, up to rounding. A primal active-set method (Nocedal and Wright, Numerical Optimization,
algorithm 16.3) that takes the lowest index among equals, so that it does not cycle.
"""

from __future__ import annotations

import numpy as np

RIDGE = 1e-9
"""Added to the diagonal, as a share of its mean, so that of equally short mixtures (duplicated vectors) the most even one is found."""
SLACK = 1e-12


def shortest_mixture(gram: np.ndarray, bound: float) -> np.ndarray:
    """Return the mixture ``[K]`` for ``gram [K, K]``; ``bound`` is at least 1 / K. Zero vectors get equal weights."""
    count = len(gram)
    mixture = np.full(count, 1.0 / count)
    scale = np.trace(gram) / count
    if scale <= 0.0 or bound * count <= 1.0 + SLACK:
        return mixture
    quadratic = gram / scale + RIDGE * np.eye(count)
    bound_state = np.zeros(count, dtype=np.int64)  # -1: at 0, 1: at the bound, 0: free
    for _ in range(100 * count):
        step = _step(quadratic, mixture, bound_state == 0)
        room = np.where(step > 0.0, bound - mixture, mixture)
        step_length = np.divide(room, np.abs(step), out=np.full(count, np.inf), where=np.abs(step) > SLACK)
        if step_length.min() < 1.0:  # a free weight reaches its limit first and is held there
            first = int(step_length.argmin())
            mixture = mixture + step_length[first] * step
            bound_state[first] = 1 if step[first] > 0.0 else -1
            mixture[first] = bound if step[first] > 0.0 else 0.0
            continue
        mixture = mixture + step
        slope = quadratic @ mixture
        wrong = bound_state * (slope - slope[bound_state == 0].mean()) > SLACK  # releasing it would shorten the vector
        if not wrong.any():
            break
        bound_state[int(wrong.argmax())] = 0
    mixture = np.clip(mixture, 0.0, bound)
    normalised: np.ndarray = mixture / mixture.sum()
    return normalised


def _step(quadratic: np.ndarray, mixture: np.ndarray, free: np.ndarray) -> np.ndarray:
    """Return the step from ``mixture`` to the optimum in the ``free`` weights alone, without limits and with the same sum."""
    count = int(free.sum())
    system = np.ones((count + 1, count + 1))
    system[:count, :count], system[count, count] = quadratic[np.ix_(free, free)], 0.0
    step = np.zeros(len(mixture))
    step[free] = np.linalg.solve(system, np.append(-(quadratic @ mixture)[free], 0.0))[:count]
    return step
