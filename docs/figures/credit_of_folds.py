"""Make the table of docs/credit.md on folds: ``python docs/figures/credit_of_folds.py``.

A policy learns from the credit of three of four folds of the labels. Its credit of these labels is compared with that of the fourth fold.
"""

from pathlib import Path
from typing import Any

import gymnasium as gym
import pandas as pd
import torch

from kd_env.policies import Transition, registry

FILE = Path(__file__).with_suffix(".csv")
UPDATES = 1500
LAST = 500
"""Credit is averaged over the last updates."""


def main() -> None:
    """Teach three students on each pool with each number of labels, and write credit_of_folds.csv."""
    rows = []
    for pool in ("digits/mixed", "digits/systematic"):
        for labels in (64, 1200):
            for seed in range(100, 103):
                credit = credit_of_policies(pool, labels, seed)
                rows.append({"pool": pool, "labels": labels, "seed": seed, **credit.tail(LAST).mean()})
                print(rows[-1], flush=True)
    pd.DataFrame(rows).round(4).to_csv(FILE, index=False)


def credit_of_policies(pool: str, labels: int, seed: int) -> pd.DataFrame:
    """Return the credit of the start and of the free policy of ``crossfit_credit`` by update, in units of normalised credit.

    Columns: ``start``; ``free_seen``, of learners that have learned from the labels of the credit; ``free_unseen``, of the other one.
    """
    policy = registry.find("crossfit_credit")
    options = {"task": "digits", "teachers": pool, "updates": UPDATES, "batch_size": 32, "reward_labels": labels, **policy.env_options}
    env = gym.make_vec(
        registry.TEACHER_SELECTION,
        num_envs=32,
        vectorization_mode="vector_entry_point",
        label_seed=seed,
        validation_every=UPDATES,
        **options,
    )
    agent: Any = policy.build(env.unwrapped, seed)
    observation, _ = env.reset(seed=seed)
    rows = []
    for _ in range(UPDATES):
        action = agent.act(observation)
        following, reward, terminated, _, info = env.step(action)
        fold, credit = int(info["credit_fold"][0]), torch.from_numpy(info["credit"])
        start, _, free = (agent.proposal.policies * credit).sum(3).mean(2)  # each [folds]
        others = [number for number in range(len(free)) if number != fold]
        rows.append({"start": start[0].item(), "free_seen": free[others].mean().item(), "free_unseen": free[fold].item()})
        agent.update(Transition(observation, action, reward, following, terminated, info))
        observation = following
    return pd.DataFrame(rows)


if __name__ == "__main__":
    main()
