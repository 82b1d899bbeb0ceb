"""Run the shards of a bank on a Ray cluster. In: teachers and shards. Out: their outputs, which the caller writes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from kd_env.bank.shards import MapShards, Shard, ShardBatch, ShardLostError, ShardRunner
from kd_env.benchmark.ray_cluster import RETRIES, enter, results, shared
from kd_env.errors import InputError
from kd_env.interrupts import remember_interrupts
from kd_env.randomness import reproducible


def shards_with_ray(ray: Any, gpus_per_shard: float = 0.0) -> MapShards:
    """Return a function that runs the shards of a bank as Ray tasks.

    Teachers are pickled once; a checkpoint is read again by each worker. Twice as many shards as there are processors are submitted at a
    time, since finished shards are in memory until they are written.

    Args:
        ray: the package, connected to a cluster.
        gpus_per_shard: part of a GPU that is reserved for a shard.
    """

    def map_shards(run: ShardRunner, shards: Sequence[Shard]) -> Iterator[tuple[Shard, list[ShardBatch]]]:
        runner = [_put(ray, run)]
        task = ray.remote(num_cpus=1, num_gpus=gpus_per_shard, max_retries=RETRIES)(_work)
        at_once = 2 * max(1, int(ray.cluster_resources().get("CPU", 1)))
        return results(ray, (task.remote(runner, Path.cwd(), shard) for shard in shards), at_once, _lost, lambda: None)

    return map_shards


def _lost(reason: str) -> ShardLostError:
    return ShardLostError(f"--executor ray: {reason}; what is finished of the bank is kept, and the same command continues")


def _put(ray: Any, run: ShardRunner) -> Any:
    """Copy the teachers to the cluster."""
    try:
        return ray.put(run)
    except Exception as error:  # pickle raises what the objects raise
        for teacher in run.pool.teachers:
            try:
                ray.cloudpickle.dumps(teacher)
            except Exception as reason:
                raise InputError(
                    f"--executor ray: teacher {teacher.name!r} cannot be sent to a worker ({reason}); "
                    "make it one that pickle can copy, or build the bank with --executor local"
                ) from error
        raise


def _work(runner: Sequence[Any], folder: Path, shard: Shard) -> tuple[Shard, list[ShardBatch]]:
    """Run a shard in a worker, in the folder in which the command runs."""
    enter(folder)
    try:
        run: ShardRunner = shared(runner[0])
    except (ImportError, AttributeError) as error:
        raise InputError(f"--executor ray: a worker cannot load the teachers ({error}); put their module into PYTHONPATH") from error
    with remember_interrupts(), reproducible():
        return shard, list(run(shard))
