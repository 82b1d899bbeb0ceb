"""Shards that run elsewhere: whatever runs them, and in whatever order, the bank is that of one process."""

import pickle

import numpy as np
import pytest
from known_teachers import ATTENTION, LAYERS, Layered, Linear, image_task, layered_pool, left_behind, make_pool, spoiled

from kd_env import tasks
from kd_env.bank.bank import open_bank
from kd_env.bank.shards import ShardLostError, one_after_another
from kd_env.errors import InputError
from kd_env.teachers import Pool, load_pool
from kd_env.teachers.checkpoint import CheckpointTeacher


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr("kd_env.bank.shards.SHARD", 200)
    monkeypatch.setattr("kd_env.bank.shards.BATCH", 64)


def elsewhere(run, shards):
    """Run the shards from the last to the first, with copies of runner, shards and results as another process would have."""
    for shard in reversed(shards):
        yield pickle.loads(pickle.dumps((shard, list(pickle.loads(pickle.dumps(run))(pickle.loads(pickle.dumps(shard)))))))


def stopped_after(count):
    def map_shards(run, shards):
        for number, done in enumerate(elsewhere(run, shards)):
            if number == count:
                raise KeyboardInterrupt
            yield done

    return map_shards


class Recorded:
    """Runs shards in this process and keeps what it was asked for."""

    def __call__(self, run, shards):
        self.shards = shards
        return one_after_another(run, shards)


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("half", [False, True])
def test_a_bank_whose_shards_ran_elsewhere_has_the_bytes_of_a_local_one(tmp_path, half):
    open_bank(image_task(), layered_pool(), tmp_path / "local", keep=LAYERS | ATTENTION, half=half)
    open_bank(image_task(), layered_pool(), tmp_path / "bank", keep=LAYERS | ATTENTION, half=half, map_shards=elsewhere)
    assert content(tmp_path / "bank") == content(tmp_path / "local")
    assert left_behind(tmp_path) == {"local", "bank"}


def test_the_shards_of_a_split_are_its_parts_for_each_teacher(tmp_path):
    recorded = Recorded()
    open_bank(image_task(), make_pool(), tmp_path / "bank", map_shards=recorded)
    places = [(shard.split, shard.start, shard.stop, shard.teachers) for shard in recorded.shards]
    parts = [("train", 0, 200), ("train", 200, 400), ("train", 400, 600), ("reward", 0, 40), ("validation", 0, 30)]
    assert sorted(places) == sorted((*part, (k,)) for part in parts for k in range(2))


@pytest.mark.long
def test_heads_of_one_network_run_together(tmp_path):
    task = tasks.load("digits")
    pool = load_pool("heads(digits/experts/upright)", task)
    recorded = Recorded()
    open_bank(task, pool, tmp_path / "local", map_shards=recorded)
    assert {shard.teachers for shard in recorded.shards} == {tuple(range(len(pool.teachers)))}
    open_bank(task, pool, tmp_path / "bank", map_shards=elsewhere)
    assert content(tmp_path / "bank") == content(tmp_path / "local")


@pytest.mark.long
@pytest.mark.parametrize("architecture", ["bert", "vit"])
def test_checkpoints_are_read_again_elsewhere(architecture, own_task, make_checkpoint, tmp_path):
    task = own_task if architecture == "bert" else tasks.load("digits")
    shape = {} if architecture == "bert" else {"image_size": 8, "patch_size": 4, "num_channels": 1, "num_labels": 10}
    folder = str(make_checkpoint(tmp_path / "model", architecture, **shape))
    teacher = CheckpointTeacher(folder, task, "teacher")
    weights = sum(parameter.nbytes for parameter in teacher.network.parameters())
    teacher(task.train.inputs[:1])
    assert len(pickle.dumps(teacher)) < len(pickle.dumps(task)) + weights / 2
    open_bank(task, Pool("p", (teacher,)), tmp_path / "local", keep=LAYERS)
    open_bank(task, Pool("p", (teacher,)), tmp_path / "bank", keep=LAYERS, map_shards=elsewhere)
    assert content(tmp_path / "bank") == content(tmp_path / "local")


@pytest.mark.parametrize("count", [0, 1, 5, 9])
@pytest.mark.parametrize("continued", [elsewhere, one_after_another])
def test_a_killed_build_carries_on_elsewhere_or_here(tmp_path, count, continued):
    expected = open_bank(image_task(), make_pool(), tmp_path / "local")
    with pytest.raises(KeyboardInterrupt):
        open_bank(image_task(), make_pool(), tmp_path / "bank", map_shards=stopped_after(count))
    asked = []

    def recorded(run, shards):
        asked.extend(shards)
        return continued(run, shards)

    bank = open_bank(image_task(), make_pool(), tmp_path / "bank", map_shards=recorded)
    assert len(asked) == 10 - count
    assert bank.meta == expected.meta
    assert content(tmp_path / "bank") == content(tmp_path / "local")


def test_a_shard_that_was_begun_here_carries_on_elsewhere_at_its_next_batch(tmp_path, monkeypatch):
    open_bank(image_task(), make_pool(Linear("one", 1)), tmp_path / "local")
    monkeypatch.setattr("kd_env.bank.build.SECONDS", 0.0)

    def stop(examples, output):
        if examples > 1 + 200 + 2 * 64:
            raise KeyboardInterrupt
        return output

    with pytest.raises(KeyboardInterrupt):
        open_bank(image_task(), make_pool(Linear("one", 1, spoil=stop)), tmp_path / "bank")
    recorded = Recorded()
    open_bank(image_task(), make_pool(Linear("one", 1)), tmp_path / "bank", map_shards=recorded)
    assert (recorded.shards[0].start, recorded.shards[0].first_batch) == (200, 2)
    assert [shard.first_batch for shard in recorded.shards[1:]] == [0, 0, 0]
    assert content(tmp_path / "bank") == content(tmp_path / "local")


def test_lost_shards_keep_what_is_finished_and_wrong_outputs_do_not(tmp_path):
    def lost(run, shards):
        yield shards[0], list(run(shards[0]))
        raise ShardLostError("a worker died")

    with pytest.raises(ShardLostError):
        open_bank(image_task(), make_pool(), tmp_path / "bank", map_shards=lost)
    assert left_behind(tmp_path) == {".bank.partial"}
    recorded = Recorded()
    open_bank(image_task(), make_pool(), tmp_path / "bank", map_shards=recorded)
    assert len(recorded.shards) == 9
    broken = make_pool(Layered("broken", 2, spoil=spoiled("logits", 3, float("nan"))))
    with pytest.raises(InputError, match="logits of train example 3 are not finite"):
        open_bank(image_task(), broken, tmp_path / "other", map_shards=one_after_another)
    assert left_behind(tmp_path) == {"bank"}


def test_progress_counts_the_examples_of_shards_in_any_order(tmp_path):
    calls = []
    open_bank(image_task(), make_pool(), tmp_path / "bank", lambda *arguments: calls.append(arguments), map_shards=elsewhere)
    done = [call[1] for call in calls if call[0] == "one, train"]
    assert done == np.cumsum([64, 64, 64, 8] * 3).tolist()
    assert [call[1] for call in calls if call[0] == "two, reward"] == [40]
