"""Write docs/figures/credit_accuracy.csv: how well cheap credit agrees with exact credit. ``python docs/figures/credit_accuracy.py``.

A student is taught with equal weights. At some updates, the credit of each kind is compared with the counterfactual, which takes a real
step for each instance and teacher and measures it on all reward labels.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pandas as pd
import torch

import kd_env  # noqa: F401  (registers the ids)
from kd_env.distillation.reward_meter import RewardMeter
from kd_env.envs.credit import counterfactual
from kd_env.envs.credit_functions import make_credit
from kd_env.envs.credit_scale import normalize

KINDS = (
    ("first_order", 1),
    ("difference", 1),
    ("head", 1),
    ("first_order", 8),
    ("difference(examples=32)", 1),
    ("difference(examples=32,decay=0.9)", 1),
    ("difference(examples=64,decay=0.9)", 2),
)
"""Kinds of credit, and the updates between two held-out gradients."""
TASKS = {"digits": ("digits/experts", 400, 40), "domains": ("domains/experts", 400, 80)}
"""Pool, updates and updates between two comparisons of each task."""
SEEDS = range(3)


def agreement(task: str, seed: int) -> list[dict[str, Any]]:
    """Return a row for each comparison and kind: the mean within instances of the product of both normalised credits, 1 if equal."""
    pool, updates, every = TASKS[task]
    keywords = {"task": task, "teachers": pool, "action": "weights", "updates": updates, "reward_every": 0, "batch_size": 32}
    env: Any = gym.make_vec("kd_env/TeacherSelection-v0", num_envs=32, vectorization_mode="vector_entry_point", **keywords).unwrapped
    env.reset(seed=seed)
    run, split = env.selection.distillation, env.selection.distillation.reward_split
    exact_meter = RewardMeter(split, [seed], split.num_labels, "loss")
    functions = [(kind, refresh, make_credit(kind), RewardMeter(split, [seed], 256, "loss", refresh)) for kind, refresh in KINDS]
    rows, action = [], np.zeros(env.action_space.shape, np.float32)
    for update in range(1, updates):
        env.step(action)
        values = [function(run, meter, ("response",), None)["response"] for _, _, function, meter in functions]
        if update % every:
            continue
        exact = normalize(counterfactual(run, exact_meter, ("response",), None)["response"])
        for (kind, refresh, _, _), value in zip(functions, values, strict=True):
            mean = float((normalize(value) * exact).mean())
            rows.append({"task": task, "seed": seed, "update": update, "kind": kind, "refresh": refresh, "agreement": round(mean, 4)})
    return rows


if __name__ == "__main__":
    torch.set_num_threads(1)
    measured = [row for task in TASKS for seed in SEEDS for row in agreement(task, seed)]
    pd.DataFrame(measured).to_csv(Path(__file__).with_suffix(".csv"), index=False)
