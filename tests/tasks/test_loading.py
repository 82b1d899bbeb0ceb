"""Loading a task by its name: options, data_dir, and names that cannot be loaded."""

import gc
import re
import weakref

import datasets
import numpy as np
import pytest
from PIL import Image
from text_data import GOOD, refusal, tsv, write_folder

from kd_env import tasks
from kd_env.errors import InputError
from kd_env.tasks import digits, folders, with_data_dir, with_options
from kd_env.tasks.task import SPLITS

ROWS = [(f"number {i} {'fine' if i % 2 else 'dull'}", i % 2) for i in range(300)]


def own_folder(path):
    return write_folder(path, {"train.tsv": tsv(*(f"{text}\t{label}" for text, label in ROWS))})


@pytest.mark.parametrize(
    ("text", "data_dir", "full_name"),
    [
        ("glue/sst2", None, "glue/sst2"),
        ("glue/sst2", "some/where", "glue/sst2(data_dir=some/where)"),
        ("glue/sst2(metric=f1)", "/a b", "glue/sst2(data_dir=/a b,metric=f1)"),
        ("glue/sst2", "./7", "glue/sst2(data_dir=./7)"),
        ("glue/sst2", "/a(b)", "glue/sst2(data_dir=/a(b))"),
    ],
)
def test_a_data_dir_goes_into_the_name(text, data_dir, full_name):
    assert with_data_dir(text, data_dir) == full_name


@pytest.mark.parametrize("data_dir", ["a,b", "7", " a", "true", "a,b=c", "it's, well", "a(b", "(,"])
def test_a_data_dir_that_would_be_read_as_something_else_stands_in_quotes(data_dir):
    name = with_data_dir("glue/sst2", data_dir)
    assert name == f"glue/sst2(data_dir={data_dir!r})"
    assert with_options(name, metric="f1") == f"glue/sst2(data_dir={data_dir!r},metric=f1)"


@pytest.mark.parametrize("column", ['x")(', "')("])
def test_a_value_that_cannot_be_written_in_a_name_is_refused(column):
    with pytest.raises(InputError, match=re.escape(f"task 'folder:x': text={column!r} cannot be written in the name of a task; use")):
        with_options("folder:x", text=column)


def test_columns_go_into_the_name_of_a_folder(tmp_path):
    folder = write_folder(tmp_path / "data (old)", {"train.csv": "a, b;Price (€);x\n"})
    name = with_options(f"folder:{folder}", text="a, b", label="Price (€)", group=None)
    assert name == f"folder:{folder}(label=Price (€),text='a, b')"
    assert refusal(name) == f"{folder}/train.csv: there is a header and no example below it; add some, or delete the file"


def test_a_data_dir_is_given_once():
    with pytest.raises(
        InputError, match=r"task 'glue/sst2\(data_dir=a\)' has the option data_dir, and data_dir='b' is given too; give one"
    ):
        with_data_dir("glue/sst2(data_dir=a)", "b")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("metric=rouge", "'rouge'; known: accuracy, f1, f1_macro, mcc"),
        ("metrics=f1", "got an unexpected keyword argument 'metrics'; options: metric"),
        ("data_dir=x", "got an unexpected keyword argument 'data_dir'"),
        ("f1", "'f1': expected key=value"),
    ],
    ids=["an unknown metric", "an unknown option", "a data_dir", "an option without a value"],
)
def test_options_that_a_folder_does_not_take_are_refused(options, message, tmp_path):
    folder = write_folder(tmp_path / "own", {"train.tsv": GOOD})
    assert message in refusal(f"folder:{folder}({options})")


@pytest.mark.parametrize(
    ("task", "data_dir", "message"),
    [
        ("glue/stsb", "F", "task 'glue/stsb' is regression; supported classification tasks: cifar10, "),
        ("glue/ax", None, "task 'glue/ax' has no training data"),
        ("glue/sst", "F", "unknown task 'glue/sst'; did you mean 'glue/sst2'?"),
        ("folder:F", "F", "got an unexpected keyword argument 'data_dir'; options: metric"),
        ("digits", "F", "got an unexpected keyword argument 'data_dir'; options: none"),
    ],
)
def test_a_task_that_cannot_be_loaded_is_refused(task, data_dir, message, tmp_path):
    task, data_dir = (None if text is None else text.replace("F", str(tmp_path)) for text in (task, data_dir))
    assert message in refusal(task, data_dir)


def test_a_folder_is_loaded_again_after_a_change(tmp_path, monkeypatch):
    own_folder(tmp_path / "data")
    first = tasks.load(f"folder:{tmp_path / 'data'}")
    assert tasks.load(f"folder:{tmp_path / 'data'}") is first
    with (tmp_path / "data" / "train.tsv").open("a") as file:
        file.write("one more\t1\n")
    assert len(tasks.load(f"folder:{tmp_path / 'data'}").train) == len(first.train) + 1
    monkeypatch.chdir(tmp_path)
    relative = tasks.load("folder:data")
    (tmp_path / "other").mkdir()
    own_folder(tmp_path / "other" / "data")
    monkeypatch.chdir(tmp_path / "other")
    assert len(tasks.load("folder:data").train) == len(relative.train) - 1


def test_a_data_dir_is_loaded_again_after_a_change(tmp_path):
    for name in ("train", "dev"):
        rows = [f"{name} {text}\t{label}" for text, label in ROWS]
        (tmp_path / "SST-2").mkdir(exist_ok=True)
        (tmp_path / "SST-2" / f"{name}.tsv").write_text("\n".join(["sentence\tlabel", *rows]) + "\n")
    first = tasks.load("glue/sst2", str(tmp_path))
    assert tasks.load("glue/sst2", str(tmp_path)) is first
    (tmp_path / "SST-2" / "dev.tsv").unlink()
    with pytest.raises(InputError, match="dev"):
        tasks.load("glue/sst2", str(tmp_path))


def test_the_name_of_a_folder_may_hold_brackets(tmp_path):
    folder = own_folder(tmp_path / "mine (old), 2=two")
    assert tasks.load(f"folder:{folder}").name == f"folder:{folder}"
    assert tasks.load(f"folder:{folder}(metric=mcc)").metric == "mcc"


def test_training_rows_are_shuffled_so_that_row_numbers_say_nothing(tmp_path):
    rows = sorted(ROWS, key=lambda row: row[1])
    task = tasks.load(f"folder:{write_folder(tmp_path / 'own', {'train.tsv': tsv(*(f'{text}	{label}' for text, label in rows))})}")
    assert np.abs(np.corrcoef(np.arange(len(task.train)), task.train.labels)[0, 1]) < 0.3


def test_the_shuffle_is_fixed_and_moves_nothing_but_train():
    plain, loaded = digits.load(), tasks.load("digits")
    order = np.random.default_rng(0).permutation(len(plain.train))
    assert (loaded.train.inputs == plain.train.inputs[order]).all()
    assert (loaded.train.groups == plain.train.groups[order]).all()
    assert (loaded.test.inputs == plain.test.inputs).all()


@pytest.mark.parametrize("place", ["results.jsonl", "out/train.tsv", "out/test/log.txt", "data/log.txt", "test-run/train.tsv", "train.log"])
def test_results_in_the_folder_of_the_texts_do_not_load_them_again(place, tmp_path):
    folder = own_folder(tmp_path / "own")
    name = f"folder:{folder}"
    first = tasks.load(name)
    (folder / place).parent.mkdir(parents=True, exist_ok=True)
    (folder / place).write_text("0")
    assert tasks.load(name) is first


@pytest.mark.parametrize("place", ["test.csv", "unlabelled.tsv", "data/dev-00000-of-00002.parquet", "reward/state.json"])
def test_a_new_file_of_a_split_changes_the_files_that_are_read(place, tmp_path):
    folder = own_folder(tmp_path / "own")
    before = folders.content_stamp(folders.files_of_texts(folder))
    (folder / place).parent.mkdir(exist_ok=True)
    (folder / place).write_text("{}")
    assert folders.content_stamp(folders.files_of_texts(folder)) != before


def test_no_files_are_read_of_a_folder_that_cannot_be_looked_into(tmp_path):
    assert folders.files_of_texts(tmp_path / ("a" * 300)) == []


def test_a_dataset_is_loaded_again_after_a_change_and_not_after_results(tmp_path):
    name = f"folder:{tmp_path}"
    for extra in ([], [("one more", 1)]):
        columns = zip(*ROWS, *extra, strict=True)
        datasets.Dataset.from_dict(dict(zip(("sentence", "label"), map(list, columns), strict=True))).save_to_disk(tmp_path)
        task = tasks.load(name)
        assert sum(len(getattr(task, split)) for split in SPLITS) == 300 + len(extra)
        (tmp_path / "out").mkdir(exist_ok=True)
        (tmp_path / "out" / "results.jsonl").write_text("{}")
        assert tasks.load(name) is task


def test_images_are_loaded_again_after_a_change_of_a_split_alone(tmp_path):
    for number in range(280):
        image = tmp_path / "train" / f"class{number % 2}" / f"{number}.png"
        image.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((3, 3), number % 250, dtype=np.uint8)).save(image)
    first = tasks.load(f"images:{tmp_path}")
    (tmp_path / "out" / "train").mkdir(parents=True)
    (tmp_path / "out" / "train" / "0.png").touch()
    assert tasks.load(f"images:{tmp_path}") is first
    image.unlink()
    assert tasks.load(f"images:{tmp_path}") is not first


def test_a_changed_task_takes_the_place_of_the_earlier_one(tmp_path):
    folder, earlier = own_folder(tmp_path / "own"), []
    name = f"folder:{folder}"
    for _ in range(3):
        earlier.append(weakref.ref(tasks.load(name)))
        with (folder / "train.tsv").open("a") as file:
            file.write("one more\t1\n")
    last = tasks.load(name)
    gc.collect()
    assert [task() for task in earlier] == [None] * 3
    assert tasks.load(name) is last
