"""Finding data files in a folder that the user named."""

import os
import shutil

import pytest
from text_data import GOOD, check_defect, csv, jsonl, objects, refusal, write_folder

from kd_env.errors import InputError
from kd_env.tasks.folders import find_file, require_folder, require_single

DEFECTS = {
    "two training files": ({"train.tsv": GOOD, "train.csv": csv()}, "both train.tsv and train.csv; keep one file of each name"),
    "two test files": (
        {"train.tsv": GOOD, "test.csv": csv(), "test.jsonl": jsonl(*objects())},
        "both test.csv and test.jsonl; keep one file of each name",
    ),
}


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_defect_is_one_line_that_names_the_place(defect, tmp_path):
    check_defect(tmp_path / "own", *DEFECTS[defect])


def test_a_folder_that_is_not_there(tmp_path):
    assert f"{tmp_path}/none does not exist; name a folder of data files" in refusal(f"folder:{tmp_path}/none")
    (tmp_path / "file").touch()
    assert f"{tmp_path}/file is a file; name a folder" in refusal(f"folder:{tmp_path}/file")
    assert "'' is not the name of a folder" in refusal("folder:")


@pytest.mark.parametrize("name", ["clinc150", "fdu-mtl", "fashion-mnist"])
def test_a_task_without_its_folder_says_how_to_name_it(name, tmp_path):
    assert refusal(name) == f"task {name!r} is read from a folder; name it, as --data-dir PATH or {name}(data_dir=PATH)"
    assert f"{tmp_path}/none does not exist" in refusal(name, f"{tmp_path}/none")
    assert str(tmp_path) in refusal(name, str(tmp_path))


def test_a_number_is_not_a_folder():
    with pytest.raises(InputError, match=r"task 't': 7 is not the name of a folder; give one, and write a number as \./7"):
        require_folder(7, "t")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read anything")
def test_a_folder_that_may_not_be_read(tmp_path):
    folder = write_folder(tmp_path / "own", {"train.tsv": GOOD})
    folder.chmod(0)
    assert "cannot be read (Permission denied); check its permissions" in refusal(f"folder:{folder}")
    folder.chmod(0o700)
    shutil.rmtree(folder)


def test_a_file_is_found_with_any_suffix_that_can_be_read(tmp_path):
    folder = write_folder(tmp_path / "own", {"train.jsonl": "", "test.txt": ""})
    assert find_file(folder, "train") == folder / "train.jsonl"
    assert find_file(folder, "test") is None


def test_of_several_files_none_is_chosen(tmp_path):
    assert require_single([], "one") is None
    assert require_single([tmp_path / "a"], "one") == tmp_path / "a"
    with pytest.raises(InputError, match=r"both a and b; keep one of them"):
        require_single([tmp_path / "a", tmp_path / "b"], "one of them")
