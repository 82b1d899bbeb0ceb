"""``kd_env.distill`` and ``kd-env distill`` without a policy: a race on a user's own data writes a checkpoint and a report."""

import dataclasses
import json
import os

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, DatasetDict

import kd_env
from kd_env import tasks
from kd_env.benchmark import distilled, formats
from kd_env.benchmark.progress import Progress
from kd_env.benchmark.race import candidates
from kd_env.benchmark.race.prepare import PreparedRace, prepare_race
from kd_env.cli import invoke
from kd_env.errors import InputError
from kd_env.models import low_bit_files, onnx_export
from kd_env.paths import claim
from kd_env.teachers.checkpoint import CheckpointTeacher

pytestmark = pytest.mark.long

STUDENT = "tiny-bert(width=16,layers=1,dropout=0)"


@pytest.fixture(scope="module")
def teachers(make_checkpoint, tmp_path_factory):
    place = tmp_path_factory.mktemp("pool")
    return [str(make_checkpoint(place / name, seed=seed)) for seed, name in enumerate(("one", "two"))]


@pytest.fixture(autouse=True)
def _few_candidates(monkeypatch):
    monkeypatch.setattr(candidates, "_policies", lambda task, num_teachers: ["best_single"])


def arguments_of(own_data, teachers, out, *more):
    options = ["--task", f"folder:{own_data}", "--teachers", ",".join(teachers), "--student", STUDENT, "--updates", "12", "--quiet"]
    return ["distill", *options, "--out", str(out), *more]


def test_the_command_leaves_a_checkpoint_a_page_and_a_card(own_data, own_task, teachers, tmp_path, capsys, monkeypatch):
    out = tmp_path / "student"
    kept = []
    monkeypatch.setattr(
        distilled, "_evaluated", lambda *arguments, evaluate=distilled._evaluated: kept.append(evaluate(*arguments)) or kept[-1]
    )
    assert invoke(arguments_of(own_data, teachers, out)) == 0
    assert capsys.readouterr() == (f"{out}\n", "")
    assert {path.name for path in tmp_path.iterdir()} == {"student"}
    values = json.loads((out / "race.json").read_text())
    assert len(values["candidates"]) == 5
    assert values["kept"]["candidate"] == values["candidates"][0]["candidate"]
    logits = CheckpointTeacher(str(out), own_task)(own_task.test.inputs).logits
    accuracy = float((logits.argmax(1).numpy() == own_task.test.labels).mean())
    assert values["test"][0] == pytest.approx(accuracy)
    run = kept[0]._result.student
    torch.testing.assert_close(logits, run.student.predict(run.data.read(own_task.test.inputs)), atol=1e-5, rtol=1e-4)
    page, card = (out / "race.md").read_text(), (out / "README.md").read_text()
    assert f"**Kept: {values['kept']['candidate']}**" in page
    assert "- Candidates are scored on 64 of validation and 64 of reward." in page
    assert values["verdict"] in page.replace("**", "")
    assert card.startswith("---\nlibrary_name: transformers\npipeline_tag: text-classification\ntags:\n- knowledge-distillation\n")
    for row in values["candidates"]:
        assert row["candidate"] in card
    before = (out / "race.json").read_bytes()
    assert invoke(arguments_of(own_data, teachers, out)) == 0, "a finished race is not run again"
    assert len(kept) == 1
    assert (out / "race.json").read_bytes() == before
    assert invoke(arguments_of(own_data, teachers, out, "--set", "temperature=3")) == 2
    assert "student holds the student of another race (other data, teachers or settings); name a new folder" in capsys.readouterr().err
    (out / "race.json").unlink()
    assert invoke(arguments_of(own_data, teachers, out)) == 2
    assert "student holds something that this command did not write; name a new folder" in capsys.readouterr().err


def test_two_commands_do_not_distil_into_one_folder(own_data, teachers, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(PreparedRace, "run", lambda *_: pytest.fail("it is not run"))
    with claim(tmp_path / ".student.lock"):
        assert invoke(arguments_of(own_data, teachers, tmp_path / "student")) == 2
    error = capsys.readouterr().err
    assert f"student: process {os.getpid()} of " in error
    assert "is distilling into it; wait for it, or name another folder" in error


def test_trials_that_were_started_are_not_deleted(own_data, teachers, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(PreparedRace, "run", lambda *_: pytest.fail("it is not run"))
    (tmp_path / ".student.partial" / "distillation").mkdir(parents=True)
    assert invoke(arguments_of(own_data, teachers, tmp_path / "student")) == 2
    assert "trials of --policy were started there; name the policy to continue them, delete the folder" in capsys.readouterr().err


def test_a_folder_that_holds_something_else_is_refused_before_teachers_are_read(own_data, teachers, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("kd_env.benchmark.race.prepare.load_pool", lambda *_: pytest.fail("the pool is not loaded"))
    (tmp_path / "out").write_text("a file")
    assert invoke(arguments_of(own_data, teachers, tmp_path / "out")) == 2
    assert "out holds something that this command did not write; name a new folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--policy", "uniform", "--policy", "router"], "distill takes one policy; leave --policy out to race several"),
        (["--policy", "uniform", "--budget", "10"], "it is the budget of a race"),
        (["--budget", "10 parsecs"], "expected a number of updates, as 2000, or a time, as 10min, 90s or 1h"),
        (["--seeds", "0-2"], "--seeds 0,1,2: a race starts with one seed and adds seeds itself"),
        (["--set", "action=one"], "each candidate of a race sets its own"),
        (["--set", "lr=3"], "unknown setting 'lr'"),
    ],
)
def test_what_cannot_be_used_is_refused_before_teachers_are_read(own_data, teachers, tmp_path, monkeypatch, capsys, more, message):
    monkeypatch.setattr("kd_env.benchmark.race.prepare.load_pool", lambda *_: pytest.fail("the pool is not loaded"))
    assert invoke(arguments_of(own_data, teachers, tmp_path / "out", *more)) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_student_that_cannot_be_saved_is_refused_first(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("kd_env.benchmark.race.prepare.load_pool", lambda *_: pytest.fail("the pool is not loaded"))
    assert invoke(["distill", "--task", "digits", "--out", str(tmp_path / "out"), "--quiet"]) == 2
    assert "student 'mlp(width=24)' is not a Transformers model" in capsys.readouterr().err


def test_python_takes_models_and_datasets_as_they_are(own_task, teachers, tmp_path):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

    texts = np.concatenate([own_task.train.inputs, own_task.test.inputs]).tolist()
    rows = {"words": texts, "mood": np.concatenate([own_task.train.labels, own_task.test.labels]).tolist()}
    data = Dataset.from_dict(rows).cast_column("mood", ClassLabel(names=["neg", "pos"]))
    model = AutoModelForSequenceClassification.from_pretrained(teachers[0])
    pair = AutoModelForSequenceClassification.from_pretrained(teachers[1]), AutoTokenizer.from_pretrained(teachers[1])
    answers = pipeline("text-classification", model=teachers[0], device="cpu")
    best = kd_env.distill(
        task=DatasetDict(train=data), teachers=[model, pair, answers], student=STUDENT, text="words", label="mood", updates=6, budget=12
    )
    assert best.report.startswith("# The best student for data\n")
    assert len(best._race.setup.pool.names) == 3
    assert best.student.config.num_labels == 2
    saved = CheckpointTeacher(str(best.save(tmp_path / "saved")), best._race.task)
    classes = saved(best._race.task.test.inputs).logits.argmax(1).numpy()
    assert float((classes == best._race.task.test.labels).mean()) == pytest.approx(best.test[0])
    bank = best._race.setup.bank.gather("validation", slice(None)).logits
    np.testing.assert_allclose(bank[:, 0], bank[:, 2], atol=1e-6, err_msg="a model and its pipeline are one teacher")


def test_python_s_student_can_be_a_model_and_need_not_be_saved(own_task, teachers):
    from transformers import AutoModel

    best = kd_env.distill(own_task, teachers[:1], AutoModel.from_pretrained(teachers[1]), updates=4, budget=8)
    assert best.student.config.model_type == "bert"


def test_a_dataset_needs_a_split_train():
    with pytest.raises(InputError, match="no split train, found test; rename one"):
        tasks.from_datasets(DatasetDict(test=Dataset.from_dict({"sentence": ["a"], "label": [0]})))
    with pytest.raises(InputError, match=r"a list is not a datasets.Dataset"):
        kd_env.distill([1, 2])
    stream = Dataset.from_dict({"sentence": ["a"], "label": [0]}).to_iterable_dataset()
    with pytest.raises(InputError, match="task 'data', train: a IterableDataset is a stream; load it without streaming"):
        tasks.from_datasets(stream)


def test_a_student_that_is_saved_over_another_leaves_nothing_of_it(own_task, teachers, tmp_path):
    students = ("tiny-bert(width=16,layers=1,bits=4)", "tiny-bert(width=16,layers=1)")
    low, plain = (kd_env.distill(own_task, teachers[:1], student, updates=4, budget=8) for student in students)
    low.save(tmp_path)
    assert (tmp_path / low_bit_files.FILE).exists()
    (tmp_path / "mine.json").write_text("{}")
    (tmp_path / "model.onnx").touch()
    plain.save(tmp_path)
    assert not {low_bit_files.FILE, "model.onnx"} & {path.name for path in tmp_path.iterdir()}
    assert (tmp_path / "mine.json").exists()


def test_another_metric_or_test_split_is_another_race(own_data):
    races = [prepare_race(task, None, STUDENT, None, 0, None, {}, Progress(quiet=True)) for task in _three_tasks(own_data)]
    assert len({race.key for race in races}) == 3


def _three_tasks(own_data):
    task = tasks.load(f"folder:{own_data}")
    return task, dataclasses.replace(task, metric="f1_macro"), dataclasses.replace(task, test=task.test.take(np.arange(10)))


@pytest.mark.slow
def test_the_shipped_formats_have_their_scores(own_data, own_task, teachers, tmp_path, capsys):
    out = tmp_path / "student"
    assert invoke(arguments_of(own_data, teachers, out, "--budget", "20", "--export", "onnx", "--dtype", "int8")) == 0
    formats_json = json.loads((out / "formats.json").read_text())
    assert set(formats_json) == {"float32", "onnx", "int8"}
    inputs = formats.open_checkpoint(str(out), own_task).reader()(own_task.test.inputs)
    expected = CheckpointTeacher(str(out), own_task)(own_task.test.inputs).logits.numpy()
    np.testing.assert_allclose(onnx_export.predict(out / "model.onnx", inputs, batch=7), expected, atol=1e-4)
    quantised = onnx_export.predict(out / "model_int8.onnx", inputs)
    accuracy = float((quantised.argmax(1) == own_task.test.labels).mean())
    assert formats_json["int8"][0] == f"{accuracy:.3f}"
    assert float(formats_json["int8"][1]) <= float(formats_json["onnx"][1])
    card = (out / "README.md").read_text()
    assert f"| int8 | model_int8.onnx | {accuracy:.3f} |" in card
    assert invoke(arguments_of(own_data, teachers, out, "--budget", "20", "--dtype", "float16")) == 0, "a format can be added later"
    assert set(json.loads((out / "formats.json").read_text())) == {"float32", "onnx", "int8", "float16"}
    assert (out / "README.md").read_text().count("## Other formats") == 1


def test_formats_that_cannot_be_written_are_refused_first(own_data, teachers, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("kd_env.benchmark.race.prepare.load_pool", lambda *_: pytest.fail("the pool is not loaded"))
    assert invoke(arguments_of(own_data, teachers, tmp_path / "out", "--export", "tflite")) == 2
    assert "distill(export='tflite'): expected onnx" in capsys.readouterr().err
    assert invoke(arguments_of(own_data, teachers, tmp_path / "out", "--dtype", "int4")) == 2
    assert "expected float32 or float16 or bfloat16 or int8" in capsys.readouterr().err
    monkeypatch.setattr(onnx_export, "PACKAGES", ("onnx", "no_such_package"))
    assert invoke(arguments_of(own_data, teachers, tmp_path / "out", "--export", "onnx")) == 2
    assert "--export onnx: no_such_package not installed; pip install 'kd-env[export]'" in capsys.readouterr().err
