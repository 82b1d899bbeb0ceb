"""Hashes of the files of checkpoints and pools."""

import os
import shutil

import pytest

from kd_env.errors import InputError
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


def test_a_folder_of_very_many_files_is_no_checkpoint(tmp_path, monkeypatch):
    monkeypatch.setattr("kd_env.teachers.file_hashes.MAX_FILES", 3)
    for number in range(4):
        assert content_hash(str(tmp_path))
        (tmp_path / str(number)).touch()
    with pytest.raises(InputError, match="holds more than 3 files and folders; name the folder of a checkpoint"):
        content_hash(str(tmp_path))


def test_a_pipe_is_not_opened(tmp_path):
    empty = content_hash(str(tmp_path))
    os.mkfifo(tmp_path / "config.json")
    assert content_hash(str(tmp_path)) == empty
