"""Banks that are built on a Ray cluster on this machine."""

import os
import threading
import time

import pytest

from kd_env import tasks
from kd_env.bank.bank import open_bank
from kd_env.benchmark.ray_cluster import ray_cluster
from kd_env.benchmark.ray_shards import shards_with_ray
from kd_env.cli import invoke
from kd_env.teachers import load_pool

SLOW = """
import os, threading, time
from pathlib import Path

import torch

from kd_env.teachers import Pool
from kd_env.types import ModelOutput


class Slow:
    def __init__(self, name, scale, dies=None):
        self.name, self.scale, self.dies = name, scale, dies

    def fingerprint(self):
        return f"slow {self.scale}"

    def __call__(self, inputs):
        if self.dies and len(inputs) > 1 and not Path(self.dies).exists():
            Path(self.dies).touch()
            os._exit(1)
        time.sleep(0.02 * len(inputs) / 256)
        values = self.scale * torch.from_numpy(inputs).flatten(1)
        return ModelOutput(values[:, :10], torch.tanh(values[:, :5]))


def pool(task):
    return Pool("slow", tuple(Slow(f"t{k}", 1.0 + k) for k in range(12)))


def dying(task):
    return Pool("slow", tuple(Slow(f"t{k}", 1.0 + k, os.environ["MARK"] if k == 1 else None) for k in range(2)))


def unpicklable(task):
    slow = pool(task)
    slow.teachers[1].lock = threading.Lock()
    return slow
"""


@pytest.fixture
def slow_teachers(tmp_path, monkeypatch):
    folder = tmp_path / "modules"
    folder.mkdir()
    (folder / "slow_teachers.py").write_text(SLOW)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")]))


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.filterwarnings("default")
def test_a_bank_of_a_cluster_that_loses_a_node_has_the_bytes_of_a_local_one(tmp_path, monkeypatch, slow_teachers):
    import ray
    from ray.cluster_utils import Cluster

    task = tasks.load("digits")
    pool = load_pool("slow_teachers:pool", task)
    open_bank(task, pool, tmp_path / "local")
    monkeypatch.setattr("slow_teachers.time.sleep", lambda seconds: None)  # here; not in the workers
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    second = cluster.add_node(num_cpus=1)
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    lost = threading.Event()

    def lose_a_node():
        done = tmp_path / ".bank.partial" / "done.txt"
        while not done.exists() or len(done.read_text().splitlines()) < 4:
            time.sleep(0.02)
        cluster.remove_node(second, allow_graceful=False)
        lost.set()

    threading.Thread(target=lose_a_node, daemon=True).start()
    try:
        with ray_cluster(1) as connected:
            open_bank(task, pool, tmp_path / "bank", map_shards=shards_with_ray(connected))
    finally:
        ray.shutdown()
        cluster.shutdown()
    assert lost.is_set()
    assert content(tmp_path / "bank") == content(tmp_path / "local")


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.filterwarnings("default")
def test_the_command_builds_with_ray_and_a_worker_that_dies_is_replaced(tmp_path, monkeypatch, slow_teachers, capsys):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("MARK", str(tmp_path / "died"))
    unpicklable = ["bank", "--task", "digits", "--teachers", "slow_teachers:unpicklable", "--executor", "ray", "--workers", "1", "--quiet"]
    assert invoke([*unpicklable, "--out", str(tmp_path / "none")]) == 2
    assert "teacher 't1' cannot be sent to a worker" in capsys.readouterr().err
    command = ["bank", "--task", "digits", "--teachers", "slow_teachers:dying", "--quiet"]
    assert invoke([*command, "--out", str(tmp_path / "ray"), "--executor", "ray", "--workers", "1"]) == 0
    assert (tmp_path / "died").exists()
    assert invoke([*command, "--out", str(tmp_path / "local")]) == 0
    assert content(tmp_path / "ray") == content(tmp_path / "local")


def test_gpus_need_ray(tmp_path, capsys):
    assert invoke(["bank", "--task", "digits", "--out", str(tmp_path / "b"), "--gpus-per-shard", "0.5"]) == 2
    assert "only Ray reserves GPUs" in capsys.readouterr().err
