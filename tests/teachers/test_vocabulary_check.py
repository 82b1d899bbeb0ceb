"""Attention is compared over the same tokens only; teachers of another vocabulary are refused when the environment is made."""

import json

import gymnasium as gym
import pytest
from transformers import AutoTokenizer

from kd_env.cli import invoke
from kd_env.errors import InputError
from kd_env.models.encode import vocabulary_hash
from kd_env.models.networks import build
from kd_env.teachers import NetworkTeacher
from kd_env.teachers.checkpoint import CheckpointTeacher
from kd_env.teachers.finetune import finetune
from kd_env.teachers.finetune_config import FinetuneConfig

BUILT_IN = "tiny-bert(width=8,layers=1,dropout=0)"


def make(task, teachers, student=BUILT_IN, knowledge="response,attention"):
    return gym.make("kd_env/TeacherSelection-v0", task=task, teachers=teachers, student=student, knowledge=knowledge, updates=2).unwrapped


@pytest.fixture(scope="module")
def checkpoint(make_checkpoint, tmp_path_factory):
    """Words are its tokens; the task's own built-in tokenizer has word pieces."""
    return str(make_checkpoint(tmp_path_factory.mktemp("words") / "checkpoint", seed=1))


def refusal(task, teachers, **options):
    with pytest.raises(InputError) as refused:
        make(task, teachers, **options)
    return str(refused.value)


def test_a_built_in_student_and_a_checkpoint_of_other_tokens(own_task, checkpoint):
    message = refusal(own_task, [CheckpointTeacher(checkpoint, own_task)])
    assert "attention compares token with token" in message
    assert f"teacher 'checkpoint' has another vocabulary than that of student {BUILT_IN!r}; leave attention out" in message
    assert "\n" not in message
    make(own_task, [CheckpointTeacher(checkpoint, own_task)], knowledge="response")


def test_a_checkpoint_student_and_a_built_in_teacher(own_task, checkpoint):
    teacher = NetworkTeacher("built-in", build(BUILT_IN, own_task, 0), own_task)
    assert "teacher 'built-in' has another vocabulary" in refusal(own_task, [teacher], student=checkpoint)
    make(own_task, [teacher])


def test_texts_that_one_of_them_cuts_earlier(own_task, checkpoint):
    teacher = CheckpointTeacher(checkpoint, own_task)
    message = refusal(own_task, [teacher], student=f"{checkpoint}(layers=0;,max_length=5)")
    limit = teacher.text_limit()[1]
    assert f"teacher 'checkpoint' cuts texts at {limit} tokens, student '{checkpoint}(layers=0;,max_length=5)' at 5" in message
    make(own_task, [teacher], student=f"{checkpoint}(layers=0;,max_length={limit - 1})")  # no text is as long


@pytest.mark.long
def test_the_same_vocabulary_in_another_checkpoint_is_fine(own_task, checkpoint, make_checkpoint, tmp_path):
    other = str(make_checkpoint(tmp_path / "other", "distilbert", seed=2, layers=2))
    env = make(own_task, [CheckpointTeacher(checkpoint, own_task), CheckpointTeacher(other, own_task)], student=f"{checkpoint}(layers=0;)")
    env.reset(seed=0)
    env.step(env.action_space.sample())
    shifted = str(make_checkpoint(tmp_path / "roberta", "roberta", seed=2))  # the same words, some under other numbers
    assert "teacher 'roberta' has another vocabulary" in refusal(
        own_task, [CheckpointTeacher(checkpoint, own_task), CheckpointTeacher(shifted, own_task)], student=checkpoint
    )


@pytest.mark.long
def test_a_fine_tuned_built_in_transformer_has_the_vocabulary_of_the_built_in_students(own_task, tmp_path):
    out = finetune(own_task, FinetuneConfig("tiny-bert(width=8,layers=1)", epochs=1), tmp_path / "trained")
    teacher, built_in = CheckpointTeacher(str(out), own_task), NetworkTeacher("built-in", build(BUILT_IN, own_task, 0), own_task)
    texts = own_task.train.inputs[:20]
    tokenizer, own_tokenizer = AutoTokenizer.from_pretrained(out), own_task.tokenizer()
    assert tokenizer.get_vocab() == own_tokenizer.get_vocab()
    assert tokenizer(list(texts))["input_ids"] == own_tokenizer(list(texts))["input_ids"]
    assert teacher.vocabulary == vocabulary_hash(own_tokenizer)
    for teachers, student in (([teacher], BUILT_IN), ([built_in], str(out))):
        env = make(own_task, teachers, student=student)
        env.reset(seed=0)
        (attention,) = env.selection.distillation.observe().teacher_attention
        assert attention.sum() > 0, "attention is compared"


def test_it_is_refused_before_a_teacher_is_run(own_task, checkpoint, monkeypatch):
    monkeypatch.setattr(CheckpointTeacher, "forward", lambda *_: pytest.fail("a teacher was run"))
    assert "another vocabulary" in refusal(own_task, [CheckpointTeacher(checkpoint, own_task)])


def test_the_command_refuses_it_in_one_line(own_data, checkpoint, tmp_path, capsys):
    words = ["run", "--task", f"folder:{own_data}", "--teachers", checkpoint, "--policy", "uniform", "--quiet", "--seeds", "0"]
    assert invoke([*words, "--set", "knowledge=response,attention", "--updates", "2", "--out", str(tmp_path / "out")]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "another vocabulary" in err
    assert not list(tmp_path.rglob("results.jsonl"))


def test_a_tokenizer_s_other_files_do_not_matter(own_task, checkpoint, make_checkpoint, tmp_path):
    other = make_checkpoint(tmp_path / "shorter", seed=1)
    config = json.loads((other / "tokenizer_config.json").read_text())
    (other / "tokenizer_config.json").write_text(json.dumps({**config, "model_max_length": 16}))
    assert CheckpointTeacher(str(other), own_task).vocabulary == CheckpointTeacher(checkpoint, own_task).vocabulary
