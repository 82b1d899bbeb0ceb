"""Parquet files and folders of the library ``datasets``: values, names of classes, missing values, shards."""

import datasets
import pandas as pd
import pytest

from kd_env import tasks
from kd_env.tasks.columnar import is_dataset, read_dataset, read_parquet


@pytest.fixture(autouse=True)
def _no_bars():
    datasets.disable_progress_bars()


def dataset(count=300, prefix="", label=None):
    labels = [number % 2 if label is None else label for number in range(count)]
    data = {"text": [f"{prefix}film {number}" for number in range(count)], "label": labels}
    return datasets.Dataset.from_dict(data).cast_column("label", datasets.ClassLabel(names=["neg", "pos"]))


def test_values_of_a_parquet_file_stay_and_missing_ones_are_none(tmp_path):
    frame = pd.DataFrame({"sentence": ["a", None], "label": [1.0, float("nan")], "sure": [True, False], "id": [7, 8]})
    frame.to_parquet(tmp_path / "train.parquet")
    table = read_parquet(tmp_path / "train.parquet")
    assert table.columns == {"sentence": ["a", None], "label": [1.0, None], "sure": [True, False], "id": [7, 8]}
    assert table.place(1) == f"{tmp_path}/train.parquet, row 2"


def test_classes_have_their_names_and_minus_one_is_no_label(tmp_path):
    dataset(4).to_parquet(tmp_path / "train.parquet")
    dataset(2, label=-1).save_to_disk(tmp_path / "test")
    assert read_parquet(tmp_path / "train.parquet").columns["label"] == ["neg", "pos", "neg", "pos"]
    assert is_dataset(tmp_path / "test")
    assert read_dataset(tmp_path / "test").columns["label"] == [None, None]


def test_a_folder_of_datasets_is_a_task_and_its_unlabelled_test_is_passed_over(tmp_path):
    parts = {"train": dataset(), "test": dataset(20, "test ", -1), "unsupervised": dataset(20)}
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "all")
    task = tasks.load(f"folder:{tmp_path}/all(text=text)")
    assert task.class_names == ("neg", "pos")
    assert (len(task.train), len(task.test)) == (108, 64)
    assert task.notes[:2] == (
        "not read: unsupervised (files are train, reward, validation, dev, test)",
        "test is passed over, since its column label is empty; to teach with its texts, rename it to unlabelled and add the option "
        "unlabelled=true",
    )
    parts["train"].save_to_disk(tmp_path / "one")
    assert tasks.load(f"folder:{tmp_path}/one(text=text)").fingerprint == task.fingerprint


def test_shards_are_one_file(tmp_path):
    (tmp_path / "data").mkdir()
    for index in range(2):
        dataset().shard(2, index, contiguous=True).to_parquet(tmp_path / "data" / f"train-0000{index}-of-00002.parquet")
    table = read_parquet(tmp_path / "data" / "train-00000-of-00002.parquet")
    assert table.columns["text"] == [f"film {number}" for number in range(300)]
    assert len(tasks.load(f"folder:{tmp_path}(text=text)").train) == 108
