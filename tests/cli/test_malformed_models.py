"""Commands with models or pool files that cannot be used: one line that says how to fix it, exit 2, nothing half-written."""

import json
import shutil

import pytest

from kd_env.cli import invoke

TINY = "tiny-bert(width=16,layers=1)"


@pytest.fixture
def place(tmp_path, make_checkpoint, monkeypatch):
    """A folder to be in, with a good checkpoint."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    make_checkpoint(tmp_path / "good")
    return tmp_path


def refused(words, says, capsys):
    assert invoke([str(word) for word in words]) == 2
    out, error = capsys.readouterr()
    assert out == ""
    (line,) = error.splitlines()
    assert line.startswith("kd-env: ")
    assert says in line, line
    assert "Traceback" not in line


POOLS = {
    "not_json.json": "{",
    "not_toml.toml": "[[teachers",
    "no_list.json": '{"teacher": []}',
    "empty.json": '{"teachers": []}',
    "no_model.json": '{"teachers": [{"name": "a"}]}',
    "typo.json": json.dumps({"teachers": [{"name": "a", "model": TINY, "epoch": 3}]}),
    "text.json": json.dumps({"teachers": [{"name": "a", "model": TINY, "epochs": "3"}]}),
    "name.json": json.dumps({"teachers": [{"name": "../a", "model": TINY}]}),
    "twice.json": json.dumps({"teachers": [{"name": "a", "model": TINY}, {"name": "a", "model": TINY}]}),
    "group.json": json.dumps({"teachers": [{"name": "fine", "model": TINY}, {"name": "b", "model": TINY, "groups": ["c"]}]}),
}


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("not_json.json", "pool file not_json.json: Expecting property name"),
        ("not_toml.toml", "pool file not_toml.toml: "),
        ("no_list.json", 'no list "teachers" in it'),
        ("empty.json", 'no list "teachers" in it'),
        ("no_model.json", "pool file no_model.json, teacher 1: model=None, expected a text"),
        ("typo.json", "teacher 1: unknown key 'epoch'; did you mean 'epochs'?"),
        ("text.json", "teacher 1: epochs='3', expected int"),
        ("name.json", "teacher 1: name '../a' cannot be the name of a folder"),
        ("twice.json", "teacher 2: another teacher is called 'a' too"),
        ("group.json", "pool file group.json, teacher 'b': unknown group of task"),
        ("absent.json", "pool file absent.json: No such file or directory; check the path"),
    ],
)
def test_pool_files(name, says, place, own_data, capsys):
    if name in POOLS:
        (place / name).write_text(POOLS[name])
    refused(["teach", "--task", f"folder:{own_data}", "--pool", name, "--out", "pool", "--quiet"], says, capsys)
    refused(["bank", "--task", f"folder:{own_data}", "--teachers", name, "--out", "bank", "--quiet"], says, capsys)
    assert not [path for path in place.iterdir() if path.is_dir() and path.name != "good"], "nothing is trained before all can be"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--model", "good", "--epochs", "0"], "epochs=0 must be at least 1"),
        (["--model", "good", "--groups", "a,c"], "unknown group of task"),
        (["--model", "good", "--label-noise", "2"], "label_noise=2.0 must be in [0, 1]"),
        (["--model", "good", "--lr", "0"], "lr=0.0 must be above 0"),
        (["--model", "good", "--lr", "1e30"], "the loss is no longer finite in epoch 1; give a lower lr"),
        (["--model", "good", "--batch-size", "0"], "batch_size=0 must be at least 1"),
        (["--model", "good", "--folds", "1"], "folds=1: must be at least 2"),
        (["--model", "good", "--folds", "0"], "folds=0: must be at least 2"),
        (["--model", "mlp(width=8)"], "cannot be saved as a checkpoint; use tiny-bert, a folder or a hub id"),
        (["--model", "tiny-brt"], "unknown network 'tiny-brt'; did you mean 'tiny-bert'? (there is no folder of that name either)"),
        (["--model", "tiny-vit"], "reads images, task"),
        (["--model", "tiny-bert", "--max-length", "2"], "max_length=2 must be in [3, 1048576]"),
        (
            ["--model", "no/such-model-anywhere"],
            "checkpoint 'no/such-model-anywhere': no such local folder, it is not in the hub's cache, and HF_HUB_OFFLINE is set",
        ),
        ([], "give either --model M, or --pool FILE"),
        (["--model", "good", "--pool", "x.json"], "give either --model M, or --pool FILE"),
        (["--pool", "x.json", "--epochs", "3"], "leave out the other options"),
        (["--model", "good", "--out", "good"], "good holds something that kd-env teach did not write"),
        (["--model", "good", "--out", "a_file"], "a_file"),
    ],
)
def test_teach(words, says, place, own_data, capsys):
    (place / "a_file").touch()
    refused(["teach", "--task", f"folder:{own_data}", "--out", "taught", "--quiet", *words], says, capsys)
    assert {path.name for path in place.iterdir()} == {"good", "a_file"}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--teachers", "good,./other/good"], "teacher names must be unique, got good, good; rename one, for example its folder"),
        (["--teachers", "good,no/such-model"], "checkpoint 'no/such-model': no such local folder"),
        (["--teachers", "god"], "unknown pool 'god'"),
        (["--teachers", "other/none"], "other/none: no config.json in it or in its folders"),
        (["--student", "good(layers=0;9)"], "layer 9 does not exist"),
        (["--student", "mlp"], "reads images"),
        (["--out", "good"], "good holds something that this command did not write"),
    ],
)
def test_distill(words, says, place, own_data, capsys):
    shutil.copytree(place / "good", place / "other" / "good")
    (place / "other" / "none").mkdir()
    options = ["--task", f"folder:{own_data}", "--policy", "uniform", "--updates", "1", "--out", "student", "--quiet"]
    refused(["distill", *options, *(words if "--teachers" in words else ["--teachers", "good", *words])], says, capsys)
    assert not (place / "student").exists()


def test_a_student_that_is_no_transformer_is_not_distilled_to_a_checkpoint(place, capsys):
    words = ["distill", "--task", "digits", "--policy", "uniform", "--updates", "1", "--out", "student", "--quiet"]
    refused(words, "student 'mlp(width=24)' is not a Transformers model and cannot be saved as one; use --student tiny-vit", capsys)
    assert not [path for path in place.iterdir() if "student" in path.name]


def test_a_hub_that_does_not_answer(place, own_data, monkeypatch, capsys):
    def down(*_args, **_options):
        raise OSError("Name or service not known")

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.snapshot_download", down)
    says = "the download from the hub failed (Name or service not known); check the name and the network"
    refused(["teach", "--task", f"folder:{own_data}", "--out", "taught", "--quiet", "--model", "no/such-model-anywhere"], says, capsys)
