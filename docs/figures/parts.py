"""Make the table of parts in docs/how-to/choose.md from docs/records/parts: ``python docs/figures/parts.py``.

Each form of ``crossfit_credit`` leaves out or changes one part. Differences to its default are of test accuracy, paired by seed.
"""

from pathlib import Path

import pandas as pd

from kd_env.benchmark import records
from kd_env.benchmark.statistics import paired_difference

FILE = Path(__file__).with_suffix(".csv")
RECORDS = Path(__file__).parent.parent / "records" / "parts"
POLICY, CREDIT = "crossfit_credit", "first_order(folds=4)"


def compare() -> pd.DataFrame:
    """Return a row for each form and pool: the difference to the default in points, with its 95 % interval."""
    scores: dict[tuple[str, str], dict[str, dict[int, float]]] = {}
    for run in records.read(RECORDS):
        pools = scores.setdefault((run["policy"], run["config"].get("credit", CREDIT)), {})
        pools.setdefault(run["pool"].removeprefix("digits/"), {})[run["seed"]] = run["test"]
    default = scores.pop((POLICY, CREDIT))
    rows = []
    for (policy, credit), pools in scores.items():
        for pool, tests in pools.items():
            seeds = sorted(tests)
            difference = paired_difference([tests[seed] for seed in seeds], [default[pool][seed] for seed in seeds])
            points = {name: 100 * getattr(difference, name) for name in ("mean", "low", "high")}
            rows.append({"form": policy if credit == CREDIT else f"credit={credit}", "pool": pool, **points, "seeds": len(seeds)})
    return pd.DataFrame(rows)


def main() -> None:
    """Write parts.csv and print the table."""
    table = compare()
    table.round(2).to_csv(FILE, index=False)
    print(table.round(1).to_string(index=False))


if __name__ == "__main__":
    main()
