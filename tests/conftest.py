"""What all tests share: a cache of their own, one thread, and material to distil with."""

import os

import pytest
import torch

from kd_env import tasks
from kd_env.distillation import Material
from kd_env.knowledge.bank import open_bank
from kd_env.student.networks import build
from kd_env.teachers import NetworkTeacher, Pool, load_pool


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory):
    """The workers of one run share a fresh cache, so that each pool is trained once; the user's stays as it is."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KD_ENV_CACHE", str(shared / "kd-env-cache"))
        yield


@pytest.fixture(scope="session")
def digits_material():
    """Digits with the four experts: K = 4, C = 10."""
    task = tasks.load("digits")
    return Material.of(task, open_bank(task, load_pool("digits/experts", task)))


@pytest.fixture(scope="session")
def text_material():
    """A little generated text with three untrained teachers: K = 3, C = 4."""
    task = tasks.load("domains(train=160,reward=48,validation=32,test=16)")
    network = "tiny-bert(width=16,layers=1,dropout=0)"
    teachers = tuple(NetworkTeacher(f"teacher{seed}", build(network, task, seed), task, logit_scale=4.0) for seed in range(3))
    return Material.of(task, open_bank(task, Pool("untrained", teachers)))


@pytest.fixture(scope="session")
def layered_material():
    """The same text with three untrained teachers of other depths and widths, whose bank keeps layers and attention."""
    task = tasks.load("domains(train=160,reward=48,validation=32,test=16)")
    shapes = [(16, 1, 2), (8, 3, 4), (12, 2, 1)]
    networks = [f"tiny-bert(width={width},layers={layers},heads={heads},dropout=0)" for width, layers, heads in shapes]
    teachers = tuple(NetworkTeacher(f"teacher{k}", build(text, task, k), task, logit_scale=4.0) for k, text in enumerate(networks))
    return Material.of(task, open_bank(task, Pool("layered", teachers), keep=frozenset({"layers", "attention"})))
