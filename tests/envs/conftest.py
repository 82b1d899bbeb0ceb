"""Pools of untrained teachers, and banks that environments share."""

import pytest

from kd_env import tasks
from kd_env.bank.fingerprint import fingerprint
from kd_env.envs import make
from kd_env.models.networks import build
from kd_env.teachers import NetworkTeacher, Pool

NETWORKS = {"image": "mlp(width={width},depth=2)", "text": "tiny-bert(width={width},layers=1,dropout=0)"}


POOLS, BANKS = {}, {}
"""Pools by name and task, banks by fingerprint and folder, for all tests of environments in this process."""


@pytest.fixture(scope="module", autouse=True)
def _load_once():
    """Load each pool and open each bank once: the checks of their files take longer than a small episode, and tests/bank tests them."""
    load_pool, open_bank = make.load_pool, make.open_bank

    def loaded(text, task):
        key = text, task.fingerprint
        POOLS[key] = POOLS[key] if key in POOLS else load_pool(text, task)
        return POOLS[key]

    def opened(task, pool, directory=None, keep=frozenset()):
        key = fingerprint(task, pool, keep), directory
        BANKS[key] = BANKS[key] if key in BANKS else open_bank(task, pool, directory, keep=keep)
        return BANKS[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(make, "load_pool", loaded)
        patch.setattr(make, "open_bank", opened)
        yield


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
