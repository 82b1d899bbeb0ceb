"""Trials on a Ray cluster on this machine."""

import builtins
import os
import threading
import time

import pytest

from kd_env.benchmark import records
from kd_env.benchmark.progress import Progress
from kd_env.benchmark.rerun import COMPARED
from kd_env.benchmark.run import run
from kd_env.benchmark.trial import Trial
from kd_env.errors import InputError


def trials(policy="uniform", count=4, updates=200):
    return [Trial("digits", policy, seed, settings={"updates": updates}, test=False) for seed in range(count)]


def compared(folder):
    return {record["seed"]: {field: record[field] for field in COMPARED} for record in records.read(folder)}


def test_without_ray_the_message_says_what_to_install(tmp_path, monkeypatch):
    real = builtins.__import__

    def missing(name, *arguments):
        if name == "ray":
            raise ImportError("no module named ray")
        return real(name, *arguments)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(InputError, match=r"install kd-env\[ray\], or use another executor"):
        run(trials(count=1), tmp_path, Progress(quiet=True), executor="ray")


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.filterwarnings("default")
def test_a_cluster_that_loses_a_node_ends_with_the_records_of_one_process(tmp_path, monkeypatch, capsys):
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    second = cluster.add_node(num_cpus=1)
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    lost = threading.Event()

    def lose_a_node():
        checkpoints = tmp_path / "ray" / "checkpoints"
        while len(list(checkpoints.glob("*.checkpoint"))) < 2:  # both nodes are in the middle of a trial
            time.sleep(0.1)
        cluster.remove_node(second, allow_graceful=False)
        lost.set()

    thread = threading.Thread(target=lose_a_node, daemon=True)
    thread.start()
    try:
        with Progress() as progress:
            run(trials(updates=1500), tmp_path / "ray", progress, checkpoint_minutes=0.01, executor="ray")
    finally:
        ray.shutdown()
        cluster.shutdown()
    assert lost.is_set()
    assert "resumed at update" in capsys.readouterr().err
    run(trials(updates=1500), tmp_path / "local", Progress(quiet=True), executor="local")
    assert compared(tmp_path / "ray") == compared(tmp_path / "local")


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.filterwarnings("default")
def test_errors_and_plug_ins_arrive_as_they_are(tmp_path, monkeypatch):
    (tmp_path / "failing.py").write_text(
        "class Fails:\n    def __init__(self, context, seed):\n        self.seed, self.calls = seed, 0\n\n"
        "    def decide(self, batch):\n        self.calls += 1\n        raise ValueError('my own text')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(InputError, match="my own text"):
        run(trials("failing:Fails", count=2, updates=5), tmp_path / "out", Progress(quiet=True), workers=2, executor="ray")


@pytest.mark.long
def test_a_cluster_that_is_not_there_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with pytest.raises(InputError, match=r"no cluster at RAY_ADDRESS=127\.0\.0\.1:1"):
        run(trials(count=1), tmp_path, Progress(quiet=True), executor="ray")
