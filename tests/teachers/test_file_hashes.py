"""Hashes of the files of checkpoints and pools."""

import shutil

from kd_env.teachers.file_hashes import checkpoint_hash, content_hash


def test_a_checkpoint_s_hash_follows_weights_and_config_and_not_its_card(make_checkpoint, tmp_path):
    first = make_checkpoint(tmp_path / "first")
    copy, other = tmp_path / "copy", make_checkpoint(tmp_path / "other", seed=1)
    shutil.copytree(first, copy)
    (copy / "README.md").write_text("a card")
    assert checkpoint_hash(copy) == checkpoint_hash(first) != checkpoint_hash(other)
    shutil.copy(other / "model.safetensors", copy / "model.safetensors")
    assert checkpoint_hash(copy) == checkpoint_hash(other), "a change is noticed though the path is the same"


def test_the_content_of_a_pool_file_a_folder_and_of_nothing(make_checkpoint, tmp_path):
    file = tmp_path / "pool.json"
    file.write_text("{}")
    before = content_hash(str(file))
    file.write_text("[]")
    assert content_hash(str(file)) != before
    make_checkpoint(tmp_path / "pool" / "a")
    folder = content_hash(str(tmp_path / "pool"))
    make_checkpoint(tmp_path / "pool" / "b")
    assert content_hash(str(tmp_path / "pool")) != folder
    assert content_hash("") == content_hash(str(tmp_path / "none")) == content_hash("owner/name") == ""
