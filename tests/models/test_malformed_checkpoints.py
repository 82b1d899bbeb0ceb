"""Models that cannot be used: one line that names what and where, and the mend; exit 2; nothing half-written."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from kd_env.cli import invoke

TINY = "tiny-bert(width=16,layers=1)"


@pytest.fixture
def place(tmp_path, make_checkpoint, monkeypatch):
    """A folder to be in, with a good checkpoint."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    make_checkpoint(tmp_path / "good")
    return tmp_path


def change_weights(folder, change):
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def change_json(path, **values):
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def copy(place, name="bad"):
    return shutil.copytree(place / "good", place / name)


def other_labels(place, make):
    make(place / "bad", labels=("cat", "dog"))


def more_labels(place, make):
    make(place / "bad", num_labels=3)


def missing_tensors(place, make):
    change_weights(copy(place), lambda weights: weights.pop("bert.encoder.layer.1.output.dense.weight"))


def no_head(place, make):
    change_weights(copy(place), lambda weights: [weights.pop(f"classifier.{name}") for name in ("weight", "bias")])


def strange_tensors(place, make):
    change_weights(copy(place), lambda weights: weights.update({"bert.adapter.weight": torch.ones(2)}))


def wrong_shape(place, make):
    change_json(copy(place) / "config.json", intermediate_size=20)


def nan_weights(place, make):
    change_weights(copy(place), lambda weights: weights["bert.pooler.dense.bias"].fill_(float("nan")))


def pickle_only(place, make):
    folder = copy(place)
    torch.save({}, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def no_weights(place, make):
    (copy(place) / "model.safetensors").unlink()


def torn_weights(place, make):
    path = copy(place) / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def no_config(place, make):
    (place / "bad").mkdir()


def broken_config(place, make):
    (copy(place) / "config.json").write_text('{"model_type": "bert",')


def config_is_a_list(place, make):
    (copy(place) / "config.json").write_text("[]")


def config_with_nonsense(place, make):
    change_json(copy(place) / "config.json", num_attention_heads=7)


def other_architecture(place, make):
    make(place / "bad", "electra")


def code_of_its_own(place, make):
    change_json(copy(place) / "config.json", model_type="mine", auto_map={"AutoConfig": "mine.Config"})
    (place / "bad" / "mine.py").write_text("raise SystemExit('run')")


def wrong_kind(place, make):
    make(place / "bad", "vit", image_size=8, patch_size=4)


def no_tokenizer(place, make):
    folder = copy(place)
    for path in folder.glob("tokenizer*"):
        path.unlink()


def broken_tokenizer(place, make):
    (copy(place) / "tokenizer.json").write_text("{")


def larger_tokenizer(place, make):
    folder = copy(place)
    said = json.loads((folder / "tokenizer.json").read_text())
    said["model"]["vocab"] |= {f"more{number}": 100 + number for number in range(9)}
    (folder / "tokenizer.json").write_text(json.dumps(said))


CHECKPOINTS = [
    (other_labels, "has the classes 2: cat, dog, task"),
    (more_labels, "has the classes 3: LABEL_0, LABEL_1, LABEL_2, task"),
    (missing_tensors, "1 tensors are missing or of another shape, bert.encoder.layer.1.output.dense.weight say"),
    (no_head, "its classifier is not trained; give a checkpoint of a classifier, or make one with kd-env teach"),
    (strange_tensors, "1 tensors that a BertForSequenceClassification has not, bert.adapter.weight say"),
    (wrong_shape, "tensors are missing or of another shape, bert.encoder.layer.0.intermediate.dense.bias say"),
    (nan_weights, "tensor bert.pooler.dense.bias holds NaN or infinite values"),
    (pickle_only, "weights as a pickle, which can run any code"),
    (no_weights, "no model.safetensors"),
    (torn_weights, "the weights cannot be read"),
    (no_config, "no config.json in it"),
    (broken_config, "config.json cannot be read"),
    (config_is_a_list, "config.json: a JSON list, expected an object"),
    (config_with_nonsense, "bad"),
    (other_architecture, "architecture 'electra' is not supported; those that are: bert, distilbert, roberta, vit"),
    (code_of_its_own, "architecture 'mine' is not supported"),
    (wrong_kind, "reads image, task"),
    (no_tokenizer, "no tokenizer beside the weights"),
    (broken_tokenizer, "the tokenizer cannot be read"),
    (larger_tokenizer, "tokens and the weights"),
]


def refused(words, said, capsys):
    assert invoke([str(word) for word in words]) == 2
    out, error = capsys.readouterr()
    assert out == ""
    (line,) = error.splitlines()
    assert line.startswith("kd-env: ")
    assert said in line, line
    assert "Traceback" not in line


@pytest.mark.parametrize(("spoil", "said"), CHECKPOINTS)
def test_as_a_teacher(spoil, said, place, make_checkpoint, own_data, capsys):
    spoil(place, make_checkpoint)
    refused(["bank", "--task", f"folder:{own_data}", "--teachers", "bad", "--out", "bank", "--quiet"], said, capsys)
    refused(["bank", "--task", f"folder:{own_data}", "--teachers", "good,bad", "--out", "bank", "--quiet"], said, capsys)
    assert not [path for path in place.iterdir() if path.name.strip(".").startswith("bank") and path.is_dir()]


FOR_ANOTHER_HEAD = {other_labels, more_labels, no_head, strange_tensors}


@pytest.mark.parametrize(("spoil", "said"), [case for case in CHECKPOINTS if case[0] not in FOR_ANOTHER_HEAD])
def test_as_what_a_teacher_or_a_student_begins_from(spoil, said, place, make_checkpoint, own_data, capsys):
    spoil(place, make_checkpoint)
    said = "no config.json, so this is no Transformers checkpoint" if spoil is no_config else said
    refused(["teach", "--task", f"folder:{own_data}", "--model", "./bad", "--out", "taught", "--quiet"], said, capsys)
    assert not [path for path in place.iterdir() if "taught" in path.name]
    words = ["--task", f"folder:{own_data}", "--policy", "uniform", "--student", "./bad", "--teachers", "good", "--updates", "1", "--quiet"]
    refused(["distill", *words, "--out", "student"], said, capsys)
    assert not [path for path in place.iterdir() if "student" in path.name]


@pytest.mark.parametrize("spoil", sorted(FOR_ANOTHER_HEAD, key=lambda one: one.__name__))
def test_another_head_does_not_matter_to_a_body(spoil, place, make_checkpoint, own_data):
    spoil(place, make_checkpoint)
    assert invoke(["teach", "--task", f"folder:{own_data}", "--model", "./bad", "--epochs", "1", "--out", "taught", "--quiet"]) == 0


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
    ("name", "said"),
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
def test_pool_files(name, said, place, own_data, capsys):
    if name in POOLS:
        (place / name).write_text(POOLS[name])
    refused(["teach", "--task", f"folder:{own_data}", "--pool", name, "--out", "pool", "--quiet"], said, capsys)
    refused(["bank", "--task", f"folder:{own_data}", "--teachers", name, "--out", "bank", "--quiet"], said, capsys)
    assert not [path for path in place.iterdir() if path.is_dir() and path.name != "good"], "nothing is trained before all can be"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--model", "good", "--epochs", "0"], "epochs=0 must be at least 1"),
        (["--model", "good", "--groups", "a,c"], "unknown group of task"),
        (["--model", "good", "--label-noise", "2"], "label_noise=2.0 must be in [0, 1]"),
        (["--model", "good", "--lr", "0"], "lr=0.0 must be above 0"),
        (["--model", "good", "--lr", "1e30"], "the loss is no longer finite in epoch 1; give a lower lr"),
        (["--model", "good", "--batch-size", "0"], "batch_size=0 must be at least 1"),
        (["--model", "good", "--folds", "1"], "folds=1: must be at least 2"),
        (["--model", "good", "--folds", "0"], "folds=0: must be at least 2"),
        (["--model", "mlp(width=8)"], "is not a Transformers model; use tiny-bert, tiny-vit, a folder or a hub id"),
        (["--model", "tiny-brt"], "unknown network 'tiny-brt'; did you mean 'tiny-bert'? (there is no folder of that name either)"),
        (["--model", "tiny-vit"], "reads images, task"),
        (["--model", "tiny-bert", "--max-length", "500"], "max_length=500 must be in [3, 128]"),
        (
            ["--model", "no/such-model-anywhere"],
            "checkpoint 'no/such-model-anywhere': no such folder here, nor in the hub's cache, and HF_HUB_OFFLINE is set",
        ),
        ([], "give either --model M, or --pool FILE"),
        (["--model", "good", "--pool", "x.json"], "give either --model M, or --pool FILE"),
        (["--pool", "x.json", "--epochs", "3"], "leave out the other options"),
        (["--model", "good", "--out", "good"], "good holds something that kd-env teach did not write"),
        (["--model", "good", "--out", "a_file"], "a_file"),
    ],
)
def test_teach(words, said, place, own_data, capsys):
    (place / "a_file").touch()
    refused(["teach", "--task", f"folder:{own_data}", "--out", "taught", "--quiet", *words], said, capsys)
    assert {path.name for path in place.iterdir()} == {"good", "a_file"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--teachers", "good,./other/good"], "teacher names must be unique, got good, good; rename one, for example its folder"),
        (["--teachers", "good,no/such-model"], "checkpoint 'no/such-model': no such folder here"),
        (["--teachers", "god"], "unknown pool 'god'"),
        (["--teachers", "other/none"], "other/none: no config.json in it or in its folders"),
        (["--student", "good(layers=0;9)"], "layer 9 is not there"),
        (["--student", "mlp"], "reads images"),
        (["--out", "good"], "good holds something that this command did not write"),
    ],
)
def test_distill(words, said, place, own_data, capsys):
    shutil.copytree(place / "good", place / "other" / "good")
    (place / "other" / "none").mkdir()
    given = ["--task", f"folder:{own_data}", "--policy", "uniform", "--updates", "1", "--out", "student", "--quiet"]
    refused(["distill", *given, *(words if "--teachers" in words else ["--teachers", "good", *words])], said, capsys)
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
    said = "the hub does not give it (Name or service not known); check the name and the network"
    refused(["teach", "--task", f"folder:{own_data}", "--out", "taught", "--quiet", "--model", "no/such-model-anywhere"], said, capsys)
