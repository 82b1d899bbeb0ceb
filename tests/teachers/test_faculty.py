"""Teachers of other classes: the transport finds which class is which, closer teachers cost less, and checkpoints are opened by name."""

import copy
import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from kd_env.benchmark.run_trial import run_trial
from kd_env.benchmark.trial import Trial
from kd_env.errors import InputError
from kd_env.models.encode import encode
from kd_env.models.networks import build
from kd_env.teachers import load_pool
from kd_env.teachers.faculty import FacultyTeacher, parse, ranked
from kd_env.teachers.live import LiveTeacher

ORDER = [3, 1, 4, 0, 5, 9, 2, 6, 8, 7]


def faculty_of(network, task, name="other", rows=None):
    """A teacher with a copy of a network, whose classes are ``rows`` of its classifier."""
    network = copy.deepcopy(network)
    rows = list(range(network.classifier.out_features)) if rows is None else rows
    network.classifier.weight.data = network.classifier.weight.data[rows]
    network.classifier.bias.data = network.classifier.bias.data[rows]
    network.classifier.out_features = len(rows)
    live = LiveTeacher(name, network, partial(encode, task))
    return FacultyTeacher(name, live, network.classifier.weight.detach(), tuple(f"c{row}" for row in rows), task, name)


@pytest.fixture(scope="module")
def good(digits):
    return load_pool("digits/mixed", digits).teachers[0]


def accuracy(teacher, task):
    return float((teacher(task.validation.inputs).logits.argmax(1).numpy() == task.validation.labels).mean())


@pytest.mark.long
def test_classes_in_another_order_are_found(digits, good):
    teacher = faculty_of(good.network, digits, rows=ORDER)
    assert teacher.conversion.argmax(1).tolist() == ORDER
    torch.testing.assert_close(teacher.conversion.sum(1), torch.ones(10).double())
    assert accuracy(teacher, digits) > accuracy(good, digits) - 0.02


@pytest.mark.long
def test_classes_that_are_split_or_missing_are_transported_too(digits, good):
    """Twelve classes, of which two share the digit 3 and two the digit 7: their mass goes to the digits that they are."""
    teacher = faculty_of(good.network, digits, rows=[*range(10), 3, 7])
    assert teacher.conversion.argmax(1).tolist() == [*range(10), 3, 7]
    few = faculty_of(good.network, digits, rows=[0, 1, 2, 3, 4])
    assert few.conversion.argmax(1).tolist() == [0, 1, 2, 3, 4]
    assert few(digits.train.inputs[:6]).logits.shape == (6, 10)
    assert few.transport.cost > teacher.transport.cost


@pytest.mark.long
def test_probabilities_are_the_transported_ones(digits, good):
    teacher, images = faculty_of(good.network, digits, rows=ORDER), digits.train.inputs[:5]
    own = good(images).logits.double()[:, ORDER].softmax(1)
    torch.testing.assert_close(teacher(images).logits.double().softmax(1), own @ teacher.conversion, atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(teacher(images).features, good(images).features)


@pytest.mark.long
def test_a_closer_teacher_costs_less(digits, good):
    untrained = faculty_of(build("mlp(width=256)", digits, 5), digits, "untrained")
    trained = faculty_of(good.network, digits, "trained", ORDER)
    half = faculty_of(good.network, digits, "half", [0, 1, 2, 3, 4])
    assert ranked([untrained, half, trained])[0] == ("trained", trained.transport.cost)
    assert trained.transport.cost < 0.6 * untrained.transport.cost


@pytest.mark.long
def test_the_notes_say_cost_and_classes(digits, good):
    (note,) = faculty_of(good.network, digits, rows=ORDER).notes
    assert note.startswith("its 10 classes are transported to the task's at cost 0.")
    assert "'c3' to '3'" in note or "'c0' to '0'" in note


def test_the_fingerprint_is_of_weights_and_task(digits, good):
    teacher = faculty_of(good.network, digits, "a")
    assert teacher.fingerprint() == faculty_of(good.network, digits, "a").fingerprint()
    assert teacher.fingerprint() != faculty_of(good.network, digits, "b").fingerprint()
    assert teacher.fingerprint() != replace(teacher, epsilon=0.1).fingerprint()


@pytest.mark.long
def test_a_checkpoint_of_other_classes_teaches(make_checkpoint, own_task, own_data, tmp_path):
    folder = make_checkpoint(tmp_path / "moods", labels=("angry", "calm", "glad"))
    with pytest.raises(InputError):
        load_pool(str(folder), own_task)
    pool = load_pool(f"faculty({folder})", own_task)
    (teacher,) = pool.teachers
    assert pool.names == ("moods",)
    assert teacher.class_names == ("angry", "calm", "glad")
    assert teacher(own_task.train.inputs[:3]).logits.shape == (3, 2)
    assert np.isfinite(teacher(own_task.train.inputs[:3]).logits.numpy()).all()
    settings = {"updates": 3, "student": "tiny-bert(width=8,layers=1)"}
    own = make_checkpoint(tmp_path / "own", labels=("neg", "pos"))
    trial = Trial(f"folder:{own_data}", "camkd_logits", 0, f"faculty({folder}),{own}", settings=settings)
    record = run_trial(trial, tmp_path)
    assert record["teachers"][0] == "moods"
    assert not record["diverged"]


@pytest.mark.parametrize(
    ("problem_type", "labels", "says"),
    [
        ("multi_label_classification", ("angry", "calm", "glad"), "it answers yes or no for each class by itself"),
        ("regression", ("angry", "calm", "glad"), "it gives numbers, not classes"),
        (None, ("score",), r"it gives numbers, not classes \(outputs: 1, problem_type: None\)"),
    ],
)
def test_a_checkpoint_without_one_class_for_each_example_is_refused(make_checkpoint, own_task, tmp_path, problem_type, labels, says):
    folder = make_checkpoint(tmp_path / "other", labels=labels)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "problem_type": problem_type}))
    with pytest.raises(InputError, match=says):
        load_pool(f"faculty({folder})", own_task)


def test_a_teacher_has_the_name_that_was_typed(make_checkpoint, own_task, tmp_path):
    folder = make_checkpoint(tmp_path / "0123abcd", labels=("angry", "calm", "glad"))
    (tmp_path / "moods").symlink_to(folder)
    assert load_pool(f"faculty({tmp_path}/moods/)", own_task).names == ("moods",)


@pytest.mark.parametrize(("text", "inner"), [("faculty(a/b)", "a/b"), (" faculty( x ) ", "x"), ("faculty(a,b)", None), ("heads(a)", None)])
def test_names(text, inner):
    assert parse(text) == inner


def test_what_is_no_checkpoint_is_refused(own_task, tmp_path):
    for text in ("faculty(digits/experts)", f"faculty({tmp_path})", "faculty()"):
        with pytest.raises(InputError):
            load_pool(text, own_task)
    with pytest.raises(InputError, match=r"^faculty\(\): names no checkpoint; expected faculty\(FOLDER_OR_HUB_ID\)$"):
        load_pool("faculty( )", own_task)


def test_a_class_without_examples_is_refused(digits, good):
    few = replace(digits, train=digits.train.take(np.flatnonzero(digits.train.labels < 9)))
    with pytest.raises(InputError, match=r"faculty\(other\): no labelled training example has the class '9'"):
        _ = faculty_of(good.network, few).transport
