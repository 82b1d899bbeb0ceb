"""Make the table and the figure of docs/credit.md: ``python docs/figures/credit_direction.py``."""

from pathlib import Path

import gymnasium as gym
import pandas as pd

from kd_env.analysis.credit_direction import credit_direction_figure, credit_of_choices
from kd_env.policies import registry

FOLDER = Path(__file__).parent
SMOOTHINGS = (0.0, -0.1, -0.3, -1.0)
UPDATES = 1500
SEEDS = range(5)


def main() -> None:
    """Teach five students by each of two rules, and write credit_direction.csv and credit_direction.png."""
    parts = []
    for name in ("uniform", "router"):
        policy = registry.find(name)
        for seed in SEEDS:
            options = {"task": "digits", "teachers": "digits/experts", "updates": UPDATES, "batch_size": 32, **policy.env_options}
            env = gym.make_vec(registry.TEACHER_SELECTION, num_envs=32, vectorization_mode="vector_entry_point", **options)
            table = credit_of_choices(env, policy.build(env.unwrapped, seed), SMOOTHINGS, seed)
            parts.append(table.assign(taught_by=name, seed=seed))
            print(name, seed, flush=True)
    credit = pd.concat(parts, ignore_index=True)
    credit.round(4).to_csv(FOLDER / "credit_direction.csv", index=False)
    credit_direction_figure(credit).savefig(FOLDER / "credit_direction.png", dpi=150)


if __name__ == "__main__":
    main()
