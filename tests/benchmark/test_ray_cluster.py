"""Tasks of a cluster, with a stand-in for Ray that runs them when their results are asked for."""

import pickle
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import cloudpickle
import pytest

from kd_env.bank.shards import Shard, ShardLostError, ShardRunner
from kd_env.benchmark import ray_cluster, ray_executor
from kd_env.benchmark.ray_cluster import results
from kd_env.benchmark.ray_shards import shards_with_ray
from kd_env.benchmark.trial import Trial
from kd_env.errors import InputError
from kd_env.teachers import Pool


class WorkerDiedError(Exception):
    """In place of ray.exceptions.RayError."""


class FakeRay(SimpleNamespace):
    """Finishes the last of the tasks that wait, and keeps the order of what happens."""

    exceptions = SimpleNamespace(RayTaskError=type("RayTaskError", (Exception,), {}), RayError=WorkerDiedError)
    cloudpickle = cloudpickle

    def __init__(self):
        super().__init__(events=[], most=0)

    def is_initialized(self):
        return True

    def put(self, value):
        return pickle.dumps(value)

    def remote(self, **options):
        return lambda function: SimpleNamespace(remote=lambda *arguments: lambda: function(*arguments))

    def cluster_resources(self):
        return {"CPU": 1.0}

    def wait(self, references, timeout):
        self.most = max(self.most, len(references))
        return references[-1:], references[:-1]

    def get(self, reference):
        return reference()

    def cancel(self, reference):
        self.events.append(("cancelled", reference()))


def numbered(ray, count):
    for number in range(count):
        ray.events.append(("submitted", number))
        yield lambda number=number: number


def lost(reason):
    return ShardLostError(reason)


def test_results_come_as_they_are_ready_and_few_tasks_wait_at_once():
    ray, polls = FakeRay(), []
    assert sorted(results(ray, numbered(ray, 7), 3, lost, lambda: polls.append(1))) == list(range(7))
    assert ray.most == 3
    assert len(polls) == 7


def test_tasks_that_wait_are_cancelled_when_nobody_wants_them():
    ray = FakeRay()
    some = results(ray, numbered(ray, 7), 3, lost, lambda: None)
    assert next(some) == 2
    some.close()
    assert ray.events == [("submitted", 0), ("submitted", 1), ("submitted", 2), ("cancelled", 0), ("cancelled", 1)]


def test_a_worker_that_dies_too_often_is_named():
    def dies():
        raise WorkerDiedError("node 3 is gone\nand more")

    with pytest.raises(ShardLostError, match=r"^a worker died more than 3 times \(node 3 is gone\)$"):
        list(results(FakeRay(), [dies], 1, lost, lambda: None))


class Named:
    name = "echo"

    def fingerprint(self):
        return "echo"

    def __call__(self, inputs):
        raise AssertionError("never run")


def runner(teacher):
    return ShardRunner(None, Pool("p", (teacher,)), [], False)


def test_a_teacher_that_cannot_be_pickled_is_named():
    teacher = Named()
    teacher.lock = threading.Lock()
    with pytest.raises(InputError, match=r"teacher 'echo' cannot be sent to a worker \(.*--executor local"):
        shards_with_ray(FakeRay())(runner(teacher), [Shard("train", 0, 1, (0,))])


def test_a_teacher_whose_module_a_worker_does_not_find_says_what_to_do(monkeypatch):
    def missing(reference):
        raise ModuleNotFoundError("No module named 'mine'")

    monkeypatch.setattr("kd_env.benchmark.ray_shards.shared", missing)
    with pytest.raises(InputError, match=r"cannot load the teachers \(No module named 'mine'\); put their module into PYTHONPATH"):
        list(shards_with_ray(FakeRay())(runner(Named()), [Shard("train", 0, 1, (0,))]))


def test_a_worker_enters_the_folder_of_the_command(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "project").mkdir()
    ray_cluster.enter(tmp_path / "project")
    assert Path.cwd() == tmp_path / "project"
    assert sys.path[0] == str(tmp_path / "project")
    with pytest.raises(InputError, match=r"cannot enter .*/missing, in which the command runs \(No such file.*folder that all nodes share"):
        ray_cluster.enter(tmp_path / "missing")


def test_a_worker_that_reads_other_files_refuses_the_trial(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    unit = [Trial("digits", "uniform", 0)]
    with pytest.raises(InputError, match=r"reads other files .* for task 'digits'.*expected digits-of-another-folder"):
        ray_executor._work(unit, ["digits-of-another-folder"], Path.cwd(), tmp_path, 1.0, [], None)


@pytest.mark.parametrize("gpus", [0.5, 2])
def test_gpus_that_this_machine_does_not_have_are_refused(gpus, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    nodes = [{"Alive": True, "Resources": {"CPU": 2.0}}, {"Alive": False, "Resources": {"GPU": 8.0}}]
    ray = SimpleNamespace(nodes=lambda: nodes)
    with pytest.raises(InputError, match=rf"^--gpus-per-shard {gpus:g}: no node of Ray has more than 0 GPUs; leave it out$"):
        ray_cluster.check_gpus(ray, "--gpus-per-shard", gpus, print)
    nodes.append({"Alive": True, "Resources": {"GPU": 1.0}})
    ray_cluster.check_gpus(ray, "--gpus-per-shard", 1.0, print)
    with pytest.raises(InputError, match=r"^--gpus-per-shard 4: no node of Ray has more than 1 GPUs; give at most 1, or leave it out$"):
        ray_cluster.check_gpus(ray, "--gpus-per-shard", 4.0, print)


def test_a_cluster_may_grow_so_tasks_wait_for_gpus(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    lines, ray = [], SimpleNamespace(nodes=lambda: [{"Alive": True, "Resources": {"CPU": 2.0}}])
    ray_cluster.check_gpus(ray, "--gpus-per-trial", 0.5, lines.append)
    assert lines == ["--gpus-per-trial 0.5: no node of Ray has more than 0 GPUs; tasks wait until a node with enough of them joins"]
    for gpus in (1.5, float("inf")):
        with pytest.raises(InputError, match=rf"^--gpus-per-trial {gpus:g}: expected a part of one GPU, or a whole number$"):
            ray_cluster.check_gpus(ray, "--gpus-per-trial", gpus, lines.append)


def test_a_worker_loads_a_shared_object_once(monkeypatch):
    loads = []
    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(get=lambda reference: loads.append(reference) or [reference.hex()]))
    monkeypatch.setattr(ray_cluster, "_shared", {})
    first, second = SimpleNamespace(hex=lambda: "a"), SimpleNamespace(hex=lambda: "b")
    assert [ray_cluster.shared(reference) for reference in (first, first, second, second)] == [["a"], ["a"], ["b"], ["b"]]
    assert loads == [first, second]
