"""Fine-tuning: it leaves a plain checkpoint, the same however often it was stopped, made of train alone."""

import dataclasses
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

from kd_env import interrupts, tasks
from kd_env.cli import invoke
from kd_env.errors import InputError
from kd_env.teachers import load_pool
from kd_env.teachers.checkpoint import CheckpointTeacher
from kd_env.teachers.finetune import finetune
from kd_env.teachers.finetune_config import FinetuneConfig
from kd_env.teachers.finetune_loop import FinetuneLoop

QUICK = FinetuneConfig("tiny-bert(width=16,layers=1)", epochs=2, seed=3)


def weights(folder):
    return load_file(folder / "model.safetensors")


def same(folder, other):
    ours, theirs = weights(folder), weights(other)
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def accuracy(teacher, split):
    return float((teacher(split.inputs).logits.argmax(1).numpy() == split.labels).mean())


@pytest.fixture(scope="module")
def trained(own_task, tmp_path_factory):
    config = FinetuneConfig("tiny-bert(width=32,layers=1,dropout=0)", epochs=12, lr=3e-3)
    return finetune(own_task, config, tmp_path_factory.mktemp("trained") / "teacher")


@pytest.mark.long
def test_it_learns_and_any_transformers_program_can_use_it(trained, own_task):
    teacher = CheckpointTeacher(str(trained), own_task)
    assert accuracy(teacher, own_task.test) > 0.9
    model, tokenizer = AutoModelForSequenceClassification.from_pretrained(trained), AutoTokenizer.from_pretrained(trained)
    assert model.config.id2label == {0: "neg", 1: "pos"}
    assert tokenizer.model_max_length == 128
    text = own_task.test.inputs[0]
    result = pipeline("text-classification", model=str(trained), device="cpu")(text)[0]
    expected = teacher(own_task.test.inputs[:1]).logits.softmax(1)[0]
    assert result["label"] == own_task.class_names[int(expected.argmax())]
    assert result["score"] == pytest.approx(float(expected.max()), abs=1e-5)
    assert {path.name for path in trained.parent.iterdir()} == {"teacher"}, "nothing is left beside it"


def test_a_checkpoint_is_trained_further_with_a_new_head(trained, own_task, tmp_path):
    further = finetune(own_task, FinetuneConfig(str(trained), epochs=1, max_length=20), tmp_path / "further")
    assert AutoTokenizer.from_pretrained(further).model_max_length == 20
    ours, theirs = weights(further), weights(trained)
    body = "bert.embeddings.word_embeddings.weight"
    assert float((ours[body] - theirs[body]).abs().max()) < 0.01, "it started from that checkpoint"
    assert float((ours["classifier.weight"] - theirs["classifier.weight"]).abs().max()) > 0.01


def test_another_checkpoint_in_the_same_folder_is_another_call(own_task, make_checkpoint, tmp_path):
    config = FinetuneConfig(f"{make_checkpoint(tmp_path / 'model')}(layers=0;)", epochs=1)
    out = finetune(own_task, config, tmp_path / "out")
    assert finetune(own_task, config, out) == out
    make_checkpoint(tmp_path / "model", seed=1)
    with pytest.raises(InputError, match="holds a teacher made with other model files"):
        finetune(own_task, config, out)


def test_it_is_deterministic_in_its_seed(own_task, tmp_path):
    first = finetune(own_task, QUICK, tmp_path / "one")
    torch.rand(3)
    assert same(first, finetune(own_task, QUICK, tmp_path / "two"))
    assert not same(first, finetune(own_task, dataclasses.replace(QUICK, seed=4), tmp_path / "three"))


def test_stopped_at_any_time_the_same_call_ends_in_the_same_weights(own_task, tmp_path):
    whole = finetune(own_task, QUICK, tmp_path / "whole")

    def stop(at):
        def progress(_name, done, total, message):
            if (message and at == "epoch") or (not message and at == "batch" and done > total / 2):
                raise KeyboardInterrupt

        return progress

    out = tmp_path / "stopped"
    for at in ("epoch", "batch"):  # after the first epoch, then within the second
        with pytest.raises(KeyboardInterrupt):
            finetune(own_task, QUICK, out, stop(at))
        assert not out.exists()
    with pytest.raises(InputError, match=r"begun by another command .*seed"):
        finetune(own_task, dataclasses.replace(QUICK, seed=9), out)
    epochs = []
    finetune(own_task, QUICK, out, lambda _name, _done, _total, message: epochs.append(message) if message.startswith("epoch") else None)
    assert len(epochs) == 1, "the first epoch is not done again"
    assert same(whole, out)
    assert (whole / "teaching.json").read_text() == (out / "teaching.json").read_text()


def test_stopped_within_an_epoch_it_goes_on_from_there(own_task, tmp_path, monkeypatch):
    config = dataclasses.replace(QUICK, model="tiny-bert(width=8,layers=1,dropout=0.3)")
    whole = finetune(own_task, config, tmp_path / "whole")
    updates = []

    def stop(checks):
        asked = iter(range(10**9))
        monkeypatch.setattr(interrupts, "interrupted", lambda: next(asked) >= checks)

    for checks in (3, 2):
        stop(checks)
        with pytest.raises(KeyboardInterrupt):
            finetune(own_task, config, tmp_path / "stopped", lambda _name, done, _total, message: updates.append((done, message)))
    monkeypatch.setattr(interrupts, "interrupted", lambda: False)
    finetune(own_task, config, tmp_path / "stopped", lambda _name, done, _total, message: updates.append((done, message)))
    assert same(whole, tmp_path / "stopped")
    assert (whole / "teaching.json").read_text() == (tmp_path / "stopped" / "teaching.json").read_text()
    done = [done for done, message in updates if not message]
    assert done == sorted(set(done)), "no update was done twice"
    resumed = [message for _, message in updates if "resumed" in message]
    assert len(resumed) == 2
    assert resumed[0].startswith("resumed at update 4 of ")


def test_a_damaged_state_is_named_and_set_aside(own_task, tmp_path, monkeypatch):
    monkeypatch.setattr(interrupts, "interrupted", lambda: True)
    with pytest.raises(KeyboardInterrupt):
        finetune(own_task, QUICK, tmp_path / "out")
    monkeypatch.setattr(interrupts, "interrupted", lambda: False)
    state = tmp_path / ".out.partial" / "state"
    content = bytearray(state.read_bytes())
    content[-5] ^= 1
    state.write_bytes(content)
    messages = []
    finetune(own_task, QUICK, tmp_path / "out", lambda _name, _done, _total, message: messages.append(message))
    assert messages[0].startswith(f"{state}: the snapshot has changed since it was made")
    assert messages[0].endswith("it is now state.set-aside, and the teacher starts over")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_two_processes_cannot_make_one_teacher(own_task, tmp_path):
    lock = tmp_path / ".out.lock"
    holder = "import fcntl, os, sys, time; f = open(sys.argv[1], 'w'); fcntl.flock(f, fcntl.LOCK_EX); f.write('process 7 of it'); f.flush()"
    process = subprocess.Popen([sys.executable, "-c", f"{holder}; print(flush=True); time.sleep(60)", str(lock)], stdout=subprocess.PIPE)
    process.stdout.readline()
    with pytest.raises(InputError, match="out: process 7 of it is making this teacher; wait for it, or name another folder"):
        finetune(own_task, QUICK, tmp_path / "out")
    process.kill()
    process.communicate()
    finetune(own_task, QUICK, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"], "the lock of a dead process is nobody's"


def test_a_finished_teacher_is_left_as_it_is_and_another_in_its_folder_is_refused(own_task, tmp_path):
    out = finetune(own_task, QUICK, tmp_path / "out")
    before = (out / "model.safetensors").stat().st_mtime_ns
    finetune(own_task, QUICK, out)
    assert (out / "model.safetensors").stat().st_mtime_ns == before
    finetune(dataclasses.replace(own_task, name="another name of the data"), QUICK, out)
    assert (out / "model.safetensors").stat().st_mtime_ns == before
    with pytest.raises(InputError, match="holds a teacher made with other epochs, seed"):
        finetune(own_task, dataclasses.replace(QUICK, seed=5, epochs=1), out)


def test_reward_validation_and_test_are_not_read(own_task, tmp_path):
    other = dataclasses.replace(own_task, reward=own_task.train, validation=own_task.train, test=own_task.train)
    assert same(finetune(own_task, QUICK, tmp_path / "first"), finetune(other, QUICK, tmp_path / "second"))


def test_an_image_task_has_fine_tuned_teachers_too(tmp_path):
    task = tasks.load("digits")
    few = dataclasses.replace(task, train=task.train.take(np.arange(300)))
    out = finetune(few, FinetuneConfig("tiny-vit(width=8,layers=1)", epochs=1), tmp_path / "vit")
    output = CheckpointTeacher(str(out), few)(few.train.inputs[:4])
    assert output.logits.shape == (4, 10)
    assert load_pool(f"{out},digits/experts/upright", task).names == ("vit", "upright")


def test_progress_is_plain_lines_in_a_pipe_and_nothing_when_quiet(own_data, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("kd_env.benchmark.progress.SECONDS_BETWEEN_LINES", 0.0)
    words = ["teach", "--task", f"folder:{own_data}", "--model", QUICK.model, "--epochs", "2"]
    assert invoke([*words, "--out", str(tmp_path / "one")]) == 0
    output = capsys.readouterr()
    assert output.out == f"{tmp_path}/one\n"
    losses = r"train loss 0\.\d{3}, held-out loss 0\.\d{3}, accuracy 0\.\d{3}"
    assert re.search(rf"^one: epoch 2/2: {losses}; epoch [12] is kept$", output.err, re.M)
    assert re.search(
        r"^one: it has not learned: held-out accuracy 0\.\d{3}, and 0\.609 by always answering with .*; give a higher --lr",
        output.err,
        re.M,
    )
    assert re.search(r"^one: \d+ of \d+ updates", output.err, re.M)
    assert "\x1b" not in output.err
    assert invoke([*words, "--out", str(tmp_path / "two"), "--quiet"]) == 0
    assert capsys.readouterr() == (f"{tmp_path}/two\n", "")


@pytest.mark.parametrize(
    ("accuracy", "updates", "advice"),
    [
        (0.75, 200, "it has not learned: held-out accuracy 0.750, and 0.750 by always answering with the most frequent class"),
        (0.76, 99, "only 99 updates in all: with so few examples give more --epochs and a higher --lr"),
        (0.76, 100, ""),
    ],
)
def test_advice_after_a_training_that_was_too_short(accuracy, updates, advice, monkeypatch):
    loop = FinetuneLoop.__new__(FinetuneLoop)
    loop._history = [{"held_out_loss": 1.0, "held_out_metric": accuracy}]
    loop._metric, loop._held_out = "accuracy", ({}, torch.tensor([0, 1, 0, 0]))
    monkeypatch.setattr(FinetuneLoop, "_num_batches", updates)
    assert loop._advice().startswith(advice)
    assert bool(loop._advice()) == bool(advice)


@pytest.mark.parametrize(("name", "place"), [("model.safetensors", -3), ("config.json", 5), ("teaching.json", -5), ("SHA256SUMS", 2)])
def test_a_flipped_bit_in_a_teacher_is_named(trained, own_task, name, place, tmp_path):
    folder = shutil.copytree(trained, tmp_path / "teacher")
    teacher = CheckpointTeacher(str(folder), own_task)
    assert teacher.fingerprint() == CheckpointTeacher(str(trained), own_task).fingerprint()
    content = bytearray((folder / name).read_bytes())
    content[place] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(
        InputError, match=r"teacher/.*: the file has changed since kd-env teach wrote it; teach it again, or delete SHA256S"
    ):
        teacher.fingerprint()
    (folder / ("SHA256SUMS" if name != "config.json" else "teaching.json")).unlink()
    assert teacher.fingerprint(), "whoever removes one of the two files has made another checkpoint of it"
