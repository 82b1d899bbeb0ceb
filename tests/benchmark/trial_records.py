"""Parts of records that equal trials have in common."""

from kd_env.benchmark import records

UNEQUAL = ("wall_s", "peak_rss_mb")


def comparable(record):
    config = {name: value for name, value in record["config"].items() if name != "command"}
    return {name: value for name, value in record.items() if name not in UNEQUAL} | {"config": config}


def by_trial(directory):
    return {record["trial"]: comparable(record) for record in records.read(directory)}
