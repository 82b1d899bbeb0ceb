"""Callables and modules as teachers, without a class for them."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import nn
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from kd_env import tasks
from kd_env.bank.shards import outputs_of
from kd_env.errors import InputError
from kd_env.models.networks import build
from kd_env.teachers import Pool
from kd_env.teachers.own import as_pool
from kd_env.types import ModelOutput


def good_or_bad(texts):
    return [[float("bad" in text), float("good" in text)] for text in texts]


class Pixels(nn.Module):
    def __init__(self, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.linear = nn.Linear(64, 10)
        self.dropout = nn.Dropout(0.5)

    def forward(self, images):
        return self.dropout(self.linear(images.flatten(1)))


def teacher(item, task):
    return as_pool("own", [item], task).teachers[0]


def test_a_function_gives_logits_and_its_answers_identify_it(own_task):
    own, texts = teacher(good_or_bad, own_task), own_task.train.inputs[:9]
    output = own(texts)
    assert (own.name, output.logits.dtype) == ("good_or_bad", torch.float32)
    assert output.logits.tolist() == good_or_bad(texts)
    assert output.features.tolist() == output.logits.tolist()
    assert own.fingerprint() == teacher(good_or_bad, own_task).fingerprint()
    assert own.fingerprint() != teacher(lambda texts: np.zeros((len(texts), 2)), own_task).fingerprint()


def test_probabilities_become_their_logarithms(own_task):
    own = teacher(lambda texts: np.tile([0.2, 0.8], (len(texts), 1)), own_task)
    np.testing.assert_allclose(own(own_task.train.inputs[:3]).logits.exp(), [[0.2, 0.8]] * 3, rtol=1e-5)
    assert own.notes == ("its outputs are probabilities, so their logarithms are its logits",)
    assert teacher(good_or_bad, own_task).notes == ()


def test_a_module_runs_in_evaluation_mode_and_its_weights_identify_it():
    task = tasks.load("digits")
    module = Pixels()
    own, images = teacher(module, task), task.train.inputs[:6]
    expected = module.eval()(torch.from_numpy(images)).detach()
    module.train()
    torch.testing.assert_close(own(images).logits, expected)
    assert own.fingerprint() == teacher(Pixels(), task).fingerprint() != teacher(Pixels(1), task).fingerprint()


def test_a_text_module_takes_encoded_inputs_by_name_and_may_give_features(own_task):
    network = build("tiny-bert(width=8,layers=1,dropout=0)", own_task, 0)
    output = teacher(network, own_task)(own_task.train.inputs[:4])
    assert (output.logits.shape, output.features.shape) == ((4, 2), (4, 8))


class Wrapped:
    """A teacher that uses a Transformers model in its own way."""

    name = "wrapped"

    def __init__(self, folder):
        self.model, self.tokenizer = AutoModelForSequenceClassification.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)

    def fingerprint(self):
        return "wrapped 1"

    def __call__(self, inputs):
        return ModelOutput(torch.full((len(inputs), 2), 7.0), torch.zeros(len(inputs), 2))


def test_a_teacher_that_holds_a_model_answers_itself(make_checkpoint, own_task, tmp_path):
    wrapped = Wrapped(make_checkpoint(tmp_path / "model"))
    assert teacher(wrapped, own_task) is wrapped


def test_two_models_are_two_teachers(make_checkpoint, own_task, tmp_path):
    first, second = (
        AutoModelForSequenceClassification.from_pretrained(make_checkpoint(tmp_path / name, seed=seed))
        for seed, name in enumerate(("one", "two"))
    )
    pool = as_pool("both", (first, second), own_task)
    assert pool.names == ("one", "two")
    assert pool.teachers[0].fingerprint() != pool.teachers[1].fingerprint()


def test_a_tokenizer_of_another_length_is_another_teacher(make_checkpoint, own_task, tmp_path):
    folder = make_checkpoint(tmp_path / "model")
    model, tokenizer = AutoModelForSequenceClassification.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    limits = []
    for length in (32, 4):
        tokenizer.model_max_length = length
        limits.append(teacher((model, tokenizer), own_task).text_limit()[1])
    assert limits == [32, 4]


def test_lists_pools_and_equal_names(own_task):
    pool = as_pool("own", [good_or_bad, good_or_bad], own_task)
    assert pool.names == ("good_or_bad", "good_or_bad-2")
    assert as_pool("other", pool, own_task) is pool
    assert isinstance(as_pool("one", good_or_bad, own_task), Pool)


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (7, r"teachers\[0\]: a int is not a teacher; give a callable"),
        (Pixels, r"teachers\[0\]: a type is not a teacher"),
        (lambda texts: [[1.0]] * len(texts), r"logits of \d+ examples have the shape \[\d+, 1\], expected \[\d+, 2\]: one for each class"),
        (lambda texts: "yes", "returned str; return logits"),
        (lambda texts: 1 / 0, r"ZeroDivisionError: division by zero \(.*test_own\.py, line \d+\); fix it there"),
    ],
)
def test_what_is_no_teacher_is_refused(item, message, own_task):
    with pytest.raises(InputError, match=message):
        teacher(item, own_task).fingerprint()


def test_an_environment_takes_them():
    make = {"task": "digits", "updates": 2, "batch_size": 4, "teachers": [Pixels(), lambda images: np.zeros((len(images), 10))]}
    env = gym.make("kd_env/TeacherSelection-v0", **make)
    observation, _ = env.reset(seed=0)
    env.step(env.action_space.sample())
    env.close()
    assert observation["teachers"].shape[-1] % 2 == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_probabilities_of_any_precision_are_recognised(dtype):
    task, weight = tasks.load("digits"), torch.randn(64, 10, generator=torch.Generator().manual_seed(0)) / 8
    own = teacher(lambda images: (torch.from_numpy(images).flatten(1) @ weight).softmax(1).to(dtype), task)
    images = task.train.inputs[:9]
    assert own.notes
    assert torch.allclose(own(images).logits.softmax(1), (torch.from_numpy(images).flatten(1) @ weight).softmax(1), atol=0.01)


class Object:
    """A teacher with a name and a fingerprint, whose call returns ``returned``."""

    def __init__(self, returned):
        self.name, self.returned = "object", returned

    def fingerprint(self):
        return repr(self.returned)

    def __call__(self, inputs):
        return self.returned(inputs)


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (lambda inputs: None, "teacher 'object' returned no kd_env.types.ModelOutput with logits and features as tensors"),
        (lambda inputs: (torch.zeros(len(inputs), 10),) * 2, "returned no kd_env.types.ModelOutput"),
        (lambda inputs: ModelOutput(np.zeros((len(inputs), 10)), np.zeros((len(inputs), 10))), "as tensors; return one"),
        (lambda inputs: 1 / 0, r"teacher 'object': ZeroDivisionError: division by zero \(.*test_own.py, line \d+\); fix it there"),
    ],
)
def test_a_fault_of_a_teacher_object_is_named(returned, message):
    with pytest.raises(InputError, match=message):
        gym.make("kd_env/TeacherSelection-v0", task="digits", teachers=[Object(returned)])


def test_outputs_with_a_graph_are_detached(tmp_path):
    task, weight = tasks.load("digits"), torch.randn(64, 10, requires_grad=True)
    outputs = outputs_of(
        Object(lambda images: ModelOutput(*[torch.from_numpy(images).flatten(1) @ weight] * 2)), task.train.inputs[:3], frozenset()
    )
    assert not outputs.logits.requires_grad
