"""A finished student is trimmed and uploaded: its answers stay, stops leave a whole folder, and nothing but ``--push`` uses the network."""

import json
import re
import shutil

import numpy as np
import pytest
import torch

from kd_env.benchmark import trimmed
from kd_env.benchmark.push import push, require_repository
from kd_env.benchmark.shipping import Shipping
from kd_env.benchmark.trimmed import recover
from kd_env.cli import invoke
from kd_env.errors import InputError
from kd_env.models import trim_vocabulary
from kd_env.models.onnx_export import predict
from kd_env.models.pretrained import open_checkpoint
from kd_env.teachers.checkpoint import CheckpointTeacher

STUDENT = "tiny-bert(width=16,layers=1,dropout=0)"


@pytest.fixture(scope="module")
def command(own_data, make_checkpoint, tmp_path_factory):
    teacher = str(make_checkpoint(tmp_path_factory.mktemp("pool") / "one"))
    options = ["--task", f"folder:{own_data}", "--teachers", teacher, "--student", STUDENT, "--updates", "8", "--policy", "uniform"]
    return ["distill", *options, "--out"]


@pytest.fixture(scope="module")
def finished(command, tmp_path_factory):
    out = tmp_path_factory.mktemp("finished") / "student"
    assert invoke([*command, str(out), "--quiet"]) == 0
    return out


@pytest.fixture
def student(finished, tmp_path):
    """A copy of a finished student whose tokenizer has words that no text contains."""
    shutil.copytree(finished, tmp_path / "student")
    return tmp_path / "student"


def logits_of(folder, task, split):
    return CheckpointTeacher(str(folder), task)(split.inputs).logits


def few_texts(monkeypatch):
    """Let trimming see the first texts of validation alone; all tokens of the small task would stay otherwise."""
    trim = trim_vocabulary.trim
    monkeypatch.setattr(trimmed, "trim", lambda checkpoint, texts: trim(checkpoint, texts[-3:]))


@pytest.mark.long
def test_a_trimmed_student_answers_as_before(command, finished, student, own_task, capsys):
    before = logits_of(finished, own_task, own_task.validation)
    assert invoke([*command, str(student), "--trim-vocabulary"]) == 0
    error = capsys.readouterr().err
    tokens, new_tokens = map(int, re.search(r"vocabulary: (\d+) tokens, .* MB; now (\d+) tokens, .* MB", error).groups())
    assert tokens == len(open_checkpoint(str(finished), own_task).tokenizer())
    assert new_tokens == len(open_checkpoint(str(student), own_task).tokenizer()) < tokens
    assert torch.equal(logits_of(student, own_task, own_task.validation), before)
    card = (student / "README.md").read_text()
    assert card.count("## Vocabulary") == 1
    count = sum(parameter.numel() for parameter in CheckpointTeacher(str(student), own_task).network.parameters())
    assert re.search(rf"\| this student \| 0\.\d{{3}} \| {count:,} \|", card)
    assert re.search(rf"\| before \| {tokens} \| {count + 16 * (tokens - new_tokens):,} \| \d\.\d \| (0\.\d+) \| 0\.\d+ \|\n", card)
    assert re.search(rf"\| after \| {new_tokens} \| {count:,} \| ", card)
    assert {path.name for path in student.parent.iterdir()} == {"student"}
    weights = (student / "model.safetensors").stat().st_mtime_ns
    assert invoke([*command, str(student), "--trim-vocabulary", "--quiet"]) == 0
    assert (student / "model.safetensors").stat().st_mtime_ns == weights, "it is trimmed once"


def test_other_answers_are_refused_and_the_student_stays(student, own_task, monkeypatch):
    few_texts(monkeypatch)
    files = {path.name: path.read_bytes() for path in student.iterdir() if path.is_file()}
    with pytest.raises(InputError, match=r"would answer otherwise on validation \(accuracy 0\.\d+, before 0\.\d+; a logit"):
        list(Shipping(trim_vocabulary=True).run(student, own_task))
    assert {path.name: path.read_bytes() for path in student.iterdir() if path.is_file()} == files


@pytest.mark.parametrize("stop", ["trim", "_replace", "_write_section"])
def test_a_stop_leaves_the_student_whole(student, own_task, monkeypatch, stop):
    with monkeypatch.context() as patch:
        patch.setattr(trimmed, stop, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            list(Shipping(trim_vocabulary=True).run(student, own_task))
    recover(student)
    assert not (student / trimmed.FILE).exists()
    (line,) = Shipping(trim_vocabulary=True).run(student, own_task)
    assert line.startswith("vocabulary: ")
    assert {path.name for path in student.parent.iterdir()} == {"student"}


def test_a_stop_between_the_two_renames_is_made_good(student, own_task):
    copy, old = trimmed._siblings(student)
    shutil.copytree(student, copy)
    (copy / "mark").touch()
    student.rename(old)
    recover(student)
    assert (student / "mark").exists()
    assert {path.name for path in student.parent.iterdir()} == {"student"}
    shutil.copytree(student, old)
    recover(student)
    assert {path.name for path in student.parent.iterdir()} == {"student"}


@pytest.mark.slow
def test_formats_that_were_written_before_are_written_again(student, own_task):
    list(Shipping(export="onnx").run(student, own_task))
    before = (student / "model.onnx").stat().st_size
    list(Shipping(trim_vocabulary=True).run(student, own_task))
    assert (student / "model.onnx").stat().st_size < before
    inputs = open_checkpoint(str(student), own_task).reader()(own_task.test.inputs)
    np.testing.assert_allclose(predict(student / "model.onnx", inputs), logits_of(student, own_task, own_task.test).numpy(), atol=1e-4)


def test_rounded_weights_are_not_trimmed(student, own_task):
    list(Shipping(dtype="float16").run(student, own_task))
    with pytest.raises(InputError, match="are rounded already; name a new --out with both options"):
        list(Shipping(trim_vocabulary=True).run(student, own_task))


class FakeHub:
    """Stands for ``huggingface_hub.HfApi``, and remembers what it is called with."""

    calls = []
    error = None

    def create_repo(self, name, **options):
        self.calls.append(("create_repo", name, options))
        if self.error:
            raise self.error
        return f"https://hub/{name}"

    def upload_folder(self, **options):
        self.calls.append(("upload_folder", options))


@pytest.fixture
def hub(monkeypatch):
    monkeypatch.setattr("huggingface_hub.HfApi", FakeHub)
    monkeypatch.setattr("huggingface_hub.get_token", lambda: "token")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    FakeHub.calls, FakeHub.error = [], None
    return FakeHub


def test_the_folder_is_uploaded_to_a_private_repository(command, student, hub, capsys):
    assert invoke([*command, str(student), "--push", "me/student"]) == 0
    assert "uploaded to https://hub/me/student; a new repository is private" in capsys.readouterr().err
    (created, uploaded) = hub.calls
    assert created == ("create_repo", "me/student", {"private": True, "exist_ok": True})
    assert uploaded[1]["repo_id"] == "me/student"
    assert uploaded[1]["folder_path"] == student


def test_nothing_is_uploaded_unless_asked(command, student, hub):
    assert invoke([*command, str(student), "--quiet"]) == 0
    assert hub.calls == []


def test_without_network_the_folder_stays_and_the_command_is_named(command, student, hub, capsys):
    hub.error = ConnectionError("Name or service not known\nmore lines")
    assert invoke([*command, str(student), "--push", "me/student", "--quiet"]) == 2
    error = capsys.readouterr().err
    assert error == (
        f"kd-env: --push me/student: Name or service not known; the student is ready in {student}, upload it by hand: "
        f"hf upload me/student {student} . --private\n"
    )
    assert json.loads((student / "config.json").read_text())["model_type"] == "bert"


def test_a_missing_token_is_said_before_anything_is_taught(command, student, hub, monkeypatch, capsys):
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    assert invoke([*command, str(student), "--push", "me/student"]) == 2
    first, *_, last = capsys.readouterr().err.splitlines()
    assert first == "--push: no token of the Hub on this machine; log in with hf auth login before the student is finished"
    assert f"the student is ready in {student}, upload it by hand" in last
    assert hub.calls == []


def test_offline_is_respected(student, hub, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match="--push me/student: HF_HUB_OFFLINE is set; unset it; the student is ready in"):
        push(student, "me/student")


@pytest.mark.parametrize("name", ["", "student", "a/b/c", "a b/c", "a/..b", "-a/b", "a/" + "b" * 100])
def test_names_of_repositories_are_checked(name):
    with pytest.raises(InputError, match="expected ORG/NAME"):
        require_repository(name)


@pytest.mark.long
def test_python_trims_and_uploads_too(own_task, command, hub, tmp_path, monkeypatch):
    import kd_env

    teacher = command[command.index("--teachers") + 1]
    best = kd_env.distill(own_task, teacher, STUDENT, updates=4, budget=8)
    out = best.save(tmp_path / "saved", trim_vocabulary=True, push_to="me/student")
    assert (out / trimmed.FILE).exists()
    assert [call[0] for call in hub.calls] == ["create_repo", "upload_folder"]
    with pytest.raises(InputError, match="expected ORG/NAME"):
        best.save(tmp_path / "other", push_to="student")
    assert not (tmp_path / "other").exists()
