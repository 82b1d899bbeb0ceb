"""The list of finished shards of a build."""

from kd_env.bank.finished_shards import FinishedShards


def test_a_list_begins_empty_and_remembers_what_is_added(tmp_path):
    folder = tmp_path / "partial"
    first = FinishedShards(folder, "bank 1")
    assert "train 0 0" not in first
    first.add("train 0 0")
    first.add("train 0 4096")
    again = FinishedShards(folder, "bank 1")
    assert "train 0 0" in again
    assert "train 0 4096" in again
    assert "train 1 0" not in again


def test_a_torn_last_line_is_not_read(tmp_path):
    folder = tmp_path / "partial"
    FinishedShards(folder, "bank 1").add("train 0 0")
    with (folder / "done.txt").open("a") as file:
        file.write("train 0 40")
    again = FinishedShards(folder, "bank 1")
    assert "train 0 0" in again
    assert "train 0 40" not in again


def test_a_whole_list_is_not_written_again(tmp_path):
    folder = tmp_path / "partial"
    FinishedShards(folder, "bank 1").add("train 0 0")
    before = (folder / "done.txt").stat()
    FinishedShards(folder, "bank 1")
    after = (folder / "done.txt").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns), "a kill while it is written would lose the list"


def test_the_folder_of_another_build_is_cleared(tmp_path):
    folder = tmp_path / "partial"
    FinishedShards(folder, "bank 1").add("train 0 0")
    (folder / "train.logits.npy").touch()
    other = FinishedShards(folder, "bank 2")
    assert "train 0 0" not in other
    assert {path.name for path in folder.iterdir()} == {"done.txt"}


def test_a_shard_can_be_done_in_part(tmp_path):
    folder = tmp_path / "partial"
    first = FinishedShards(folder, "bank 1")
    first.add_batches("train 0 0", 2)
    first.add_batches("train 0 0", 5)
    with (folder / "done.txt").open("a") as file:
        file.write("train 0 0: 7")  # torn: the next line must not join it
    again = FinishedShards(folder, "bank 1")
    again.add("train 1 0")
    again = FinishedShards(folder, "bank 1")
    assert (again.batches("train 0 0"), again.batches("train 1 0")) == (5, 0)
    assert "train 1 0" in again
    assert "train 0 0" not in again
