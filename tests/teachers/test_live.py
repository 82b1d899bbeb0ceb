"""Networks of teachers in the loop: a checkpoint and a built-in network answer as they do in a bank; other teachers are refused."""

import numpy as np
import pytest
import torch

from kd_env import tasks
from kd_env.errors import InputError
from kd_env.models.networks import build
from kd_env.teachers import NetworkTeacher, Pool, load_pool
from kd_env.teachers.checkpoint import CheckpointTeacher
from kd_env.teachers.erring import ErringTeacher, RandomErrors
from kd_env.teachers.live import LiveTeacher, LiveTeachers

CPU = torch.device("cpu")


@pytest.mark.parametrize("architecture", ["bert", "distilbert", "roberta"])
def test_a_checkpoint_answers_for_each_text_as_in_a_bank(architecture, make_checkpoint, own_task, tmp_path):
    teacher = CheckpointTeacher(str(make_checkpoint(tmp_path / "teacher", architecture)), own_task)
    texts = own_task.train.inputs[:7]
    expected, output = teacher.forward(texts, frozenset({"layers"})), LiveTeacher.of(teacher, CPU)(texts, frozenset({"layers"}))
    for name in ("logits", "features", "layers"):
        torch.testing.assert_close(getattr(output, name), getattr(expected, name), atol=1e-6, rtol=1e-5)
    assert output.logits.requires_grad


def test_a_copy_has_weights_of_its_own():
    task = tasks.load("digits")
    live = LiveTeachers.of(load_pool("digits/experts", task), CPU)
    copies, images = live.copied(CPU, torch.float64), task.train.inputs[:5]
    for old, new in zip(live(images), copies(images), strict=True):
        torch.testing.assert_close(new.logits.float(), old.logits)
    with torch.no_grad():
        next(copies.teachers[0].network.parameters()).zero_()
    assert not torch.allclose(copies(images)[0].logits.float(), live(images)[0].logits)


def test_the_scale_of_the_logits_is_kept():
    task = tasks.load("digits")
    teacher = NetworkTeacher("sure", build("mlp(width=8)", task, 0), task, logit_scale=4.0)
    torch.testing.assert_close(LiveTeacher.of(teacher, CPU)(task.train.inputs[:4]).logits, teacher(task.train.inputs[:4]).logits)


def test_teachers_without_a_network_of_their_own_are_refused():
    task = tasks.load("digits")
    expert = load_pool("digits/experts", task).teachers[0]
    erring = ErringTeacher(expert, RandomErrors(0.5), 10)
    for pool in (Pool("erring", (erring,)), load_pool(f"heads(digits/experts/{expert.name})", task)):
        kind = type(pool.teachers[0]).__name__
        with pytest.raises(
            InputError, match=f"^teacher_answers='live': teacher '.*' is a {kind}; only .* policies that set it, such as ikd$"
        ):
            LiveTeachers.of(pool, CPU)


def test_functions_and_pools_that_change_are_refused():
    task = tasks.load("digits")

    class Constant:
        name = "constant"

        def fingerprint(self):
            return "0"

        def __call__(self, inputs):
            return np.zeros((len(inputs), 10))

    with pytest.raises(InputError, match="teacher 'constant' is a Constant"):
        LiveTeachers.of(Pool("own", (Constant(),)), CPU)
    with pytest.raises(InputError, match="the teachers of pool 'digits/drift' change during a run; use teacher_answers=bank"):
        LiveTeachers.of(load_pool("digits/drift", task), CPU)
