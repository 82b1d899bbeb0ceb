"""Pools of untrained teachers."""

import pytest

from kd_env import tasks
from kd_env.models.networks import build
from kd_env.teachers import NetworkTeacher, Pool

NETWORKS = {"image": "mlp(width={width},depth=2)", "text": "tiny-bert(width={width},layers=1,dropout=0)"}


@pytest.fixture(scope="session")
def untrained():
    """``untrained(kind, K)`` -> the keywords ``task`` and ``teachers``: an image or text task, and K untrained teachers of all widths."""
    loaded = {"image": tasks.load("digits"), "text": tasks.load("domains(train=288,reward=48,validation=32,test=16)")}

    def keywords(kind, num_teachers):
        task = loaded[kind]
        networks = [build(NETWORKS[kind].format(width=8 + 2 * (seed % 3)), task, seed) for seed in range(num_teachers)]
        teachers = tuple(NetworkTeacher(f"teacher{seed}", network, task, 4.0) for seed, network in enumerate(networks))
        return {"task": task, "teachers": Pool(f"untrained-{kind}-{num_teachers}", teachers)}

    return keywords
