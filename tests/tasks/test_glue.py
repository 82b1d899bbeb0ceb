"""GLUE from folders in its layout and from the hub: both give the same texts and labels."""

import os

import datasets
import pytest
from text_data import refusal

from kd_env import tasks
from kd_env.errors import InputError
from kd_env.tasks import glue
from kd_env.tasks.task import SPLITS
from kd_env.testing import check_task

HEADERS = {
    "sst2": "sentence\tlabel",
    "mrpc": "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String",
    "rte": "index\tsentence1\tsentence2\tlabel",
    "cola": None,
    "qnli": "index\tquestion\tsentence\tlabel",
    "wnli": "index\tsentence1\tsentence2\tlabel",
    "qqp": "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate",
    "mnli": "index\tpromptID\tgenre\tsentence1\tsentence2\tlabel1\tgold_label",
}
ROWS = {
    "sst2": "{a} \t{y}",
    "mrpc": "{y}\t7\t8\t{a}\t{b}",
    "rte": "{i}\t{a}\t{b}\t{name}",
    "cola": "gj04\t{y}\t*\t{a}",
    "qnli": "{i}\t{a}\t{b}\t{name}",
    "wnli": "{i}\t{a}\t{b}\t{y}",
    "qqp": "{i}\t1\t2\t{a}\t{b}\t{y}",
    "mnli": "{i}\t9\tfiction\t{a}\t{b}\tneutral\t{name}",
}
HUB = {
    "sst2": ("sentence",),
    "mrpc": ("sentence1", "sentence2"),
    "rte": ("sentence1", "sentence2"),
    "cola": ("sentence",),
    "qnli": ("question", "sentence"),
    "wnli": ("sentence1", "sentence2"),
    "qqp": ("question1", "question2"),
    "mnli": ("premise", "hypothesis"),
}
"""Columns of nyu-mll/glue."""


def rows(name, part, count):
    classes = glue.SOURCES[name].classes
    for i in range(count):
        y = i % len(classes)
        yield {"a": f'{part} "{i} said', "b": f"that {i % 5}", "y": y, "i": i, "name": classes[y]}


def write(folder, name, part, count=200, file=None):
    place = folder / glue.SOURCES[name].folder
    place.mkdir(exist_ok=True)
    header = [HEADERS[name]] if HEADERS[name] else []
    lines = [*header, *(ROWS[name].format(**row) for row in rows(name, part, count))]
    (place / f"{file or part}.tsv").write_text("\n".join(lines) + "\n")


def on_hub(name, part, count=200):
    examples = list(rows(name, part, count))
    columns = dict(zip(HUB[name], ([row[key] for row in examples] for key in "ab"), strict=False))
    return datasets.Dataset.from_dict({**columns, "label": [row["y"] for row in examples], "idx": list(range(count))})


@pytest.fixture
def folder(tmp_path):
    for name in HEADERS:
        write(tmp_path, name, "train", 400)
        write(tmp_path, name, "dev", 50, "dev_matched" if name == "mnli" else "dev")
        (tmp_path / glue.SOURCES[name].folder / "test.tsv").write_text("index\tsentence\n0\tunlabelled\n")
    return str(tmp_path)


@pytest.mark.parametrize("name", HEADERS)
def test_a_folder_in_glue_s_layout(name, folder):
    task = tasks.load(f"glue/{name}", folder)
    assert task.name == f"glue/{name}"
    assert {split: len(getattr(task, split)) for split in SPLITS} == {"train": 272, "reward": 64, "validation": 64, "test": 50}
    classes = glue.SOURCES[name].classes
    assert task.class_names == classes
    for i, (text, label) in enumerate(zip(task.test.inputs, task.test.labels, strict=True)):
        assert (text if isinstance(text, str) else tuple(text)) == (
            f'dev "{i} said' if len(HUB[name]) == 1 else (f'dev "{i} said', f"that {i % 5}")
        )
        assert label == i % len(classes)
    assert f"test is {'dev_matched' if name == 'mnli' else 'dev'}.tsv, since there is no labelled test" in task.notes
    check_task(lambda: tasks.load(f"glue/{name}", folder))


@pytest.mark.parametrize("name", HEADERS)
def test_the_hub_gives_the_same(name, folder, monkeypatch):
    requests = []

    def load_dataset(*names):
        requests.append(names)
        dev = "validation_matched" if name == "mnli" else "validation"
        return {"train": on_hub(name, "train", 400), dev: on_hub(name, "dev", 50)}

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    task = getattr(glue, name)()
    assert requests == [("nyu-mll/glue", name)]
    local = getattr(glue, name)(folder)
    assert task.fingerprint == local.fingerprint
    assert (task.name, task.metric, task.class_names) == (local.name, local.metric, local.class_names)
    assert list(map(str, task.test.inputs)) == list(map(str, local.test.inputs))
    assert (task.test.labels == local.test.labels).all()


def test_metrics_are_glue_s_and_another_is_part_of_the_name(folder):
    usual = {name: getattr(glue, name)(folder).metric for name in HEADERS}
    assert usual == dict.fromkeys(HEADERS, "accuracy") | {"cola": "mcc", "mrpc": "f1", "qqp": "f1"}
    assert glue.cola(folder, metric="accuracy").name == "glue/cola(metric=accuracy)"


def test_labels_of_test_are_used_where_the_folder_has_them(folder, tmp_path):
    write(tmp_path, "sst2", "labelled", 30, "test_labeled")
    task = glue.sst2(folder)
    assert (len(task.validation), len(task.test)) == (50, 30)
    assert str(task.test.inputs[0]).startswith("labelled")
    assert "validation is dev.tsv" in task.notes
    assert task.name == "glue/sst2 [test_labeled.tsv]", "its scores are not to be averaged with those on dev"


def test_torn_rows_of_qqp_and_rows_without_a_text_are_left_out_with_a_note(folder, tmp_path):
    file = tmp_path / "QQP" / "train.tsv"
    file.write_text(file.read_text() + "1\t2\tonly three\n7\t1\t2\t\twhat?\t1\n")
    task = glue.qqp(folder)
    assert task.notes[0] == "2 rows of train.tsv left out: torn or without a text, as published"
    assert task.fingerprint == glue.qqp(str(tmp_path)).fingerprint
    assert len(task.train) == 272


@pytest.mark.parametrize(
    ("task", "data_dir", "message"),
    [
        ("glue/sst2", "F/none", "F/none does not exist; name a folder of data files"),
        ("glue/sst2", "F/SST-2", "F/SST-2/SST-2/train.tsv: no such file; data_dir is a folder in GLUE's layout, with SST-2/train.tsv"),
        ("glue/sst2(data_dir=7)", None, "7 is not the name of a folder; give one, and write a number as ./7"),
        ("glue/sst2(metric=bleu)", "F", "unknown metric of task 'glue/sst2(metric=bleu)' 'bleu'; known: accuracy, f1, f1_macro, mcc"),
        ("glue/sst2(split=dev)", "F", "got an unexpected keyword argument 'split'; options: data_dir, metric"),
    ],
)
def test_folders_and_options_that_cannot_be_used_are_refused(task, data_dir, message, folder):
    task, data_dir, message = (None if text is None else text.replace("F", folder) for text in (task, data_dir, message))
    assert message in refusal(task, data_dir)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("so fine\t3", "train.tsv, line 402: label '3' is not among those of the training file (negative, positive)"),
        ("so fine\t", "train.tsv, line 402: label is empty"),
        ("so fine", "train.tsv, line 402: 1 fields, expected 2 (sentence, label)"),
        ("so\tfine\t1", "train.tsv, line 402: 3 fields, expected 2"),
    ],
)
def test_a_malformed_line_is_named(line, message, folder, tmp_path):
    with (tmp_path / "SST-2" / "train.tsv").open("a") as file:
        file.write(f"{line}\n")
    with pytest.raises(InputError) as error:
        glue.sst2(folder)
    assert message in str(error.value)


@pytest.mark.parametrize("missing", ["train.tsv", "dev.tsv"])
def test_a_missing_file_is_named(missing, folder, tmp_path):
    (tmp_path / "RTE" / missing).unlink()
    with pytest.raises(InputError, match=f"RTE/{missing}: no such file; data_dir is a folder in GLUE's layout"):
        glue.rte(folder)


def test_another_file_of_that_name_is_refused(folder, tmp_path):
    (tmp_path / "MRPC" / "train.tsv").write_text("sentence\tlabel\nx\t1\n")
    with pytest.raises(InputError, match=r"MRPC/train\.tsv: no column '#1 String', found sentence, label; is it GLUE's file\?"):
        glue.mrpc(folder)


def test_a_hub_out_of_reach_is_one_line_that_says_how_to_go_on(monkeypatch):
    def load_dataset(*_):
        raise ConnectionError("Couldn't reach 'nyu-mll/glue' on the Hub (OfflineModeIsEnabled)")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(InputError) as error:
        tasks.load("glue/rte")
    assert "nyu-mll/glue cannot be loaded from the hub (ConnectionError: Couldn't reach" in str(error.value)
    assert "name a folder in GLUE's layout, as --data-dir PATH or glue/rte(data_dir=PATH)" in str(error.value)


REAL = os.environ.get("KD_ENV_GLUE", "")


@pytest.mark.slow
@pytest.mark.skipif(not REAL, reason="KD_ENV_GLUE names no folder of the real GLUE")
@pytest.mark.parametrize(("name", "examples"), [("sst2", 67_349), ("mrpc", 3668), ("rte", 2490), ("cola", 8551), ("wnli", 635)])
def test_the_published_files(name, examples):
    task = tasks.load(f"glue/{name}", REAL)
    left_out = {"sst2": 2, "cola": 16}.get(name, 0)
    carved = len(task.reward) + (0 if "[" in task.name else len(task.validation))
    assert len(task.train) + carved == examples - left_out
    check_task(lambda: task)
