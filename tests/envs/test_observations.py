"""Observation sets: pure functions of a mini-batch, by hand and by their bounds."""

import itertools
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pairwise import chosen
from playing import batch as environment
from playing import rollout, slots

from kd_env.distillation import Distillation
from kd_env.distillation.settings import distillation_settings
from kd_env.envs.observations import (
    BOUND,
    OBSERVATIONS,
    ObservationSet,
    make_observation_set,
    observe,
    space,
    split_teachers,
)
from kd_env.errors import InputError
from kd_env.types import Batch, ModelOutput

LN2 = math.log(2.0)
SIZES = [(1, 1), (1, 256), (2, 5), (3, 64), (4, 32), (5, 2), (8, 64), (16, 1), (16, 256)]


def batch_of(num_teachers, size, num_classes=4, width=6, scale=3.0, seed=0, **changes):
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return scale * torch.randn(*shape, generator=generator)

    batch = Batch(
        update=np.array([3]),
        progress=np.array([0.25]),
        example_ids=np.arange(size),
        labels=torch.randint(num_classes, (size,), generator=generator),
        teacher_logits=draw(size, num_teachers, num_classes),
        teacher_features=tuple(draw(size, 7) for _ in range(num_teachers)),
        student=ModelOutput(draw(size, num_classes), draw(size, width)),
    )
    return replace(batch, **changes)


def observed(batch, name, labels):
    return observe(batch, make_observation_set(name), labels)


@pytest.mark.parametrize(("size", "name"), chosen(itertools.product(SIZES, OBSERVATIONS), zip(SIZES, 3 * [*OBSERVATIONS], strict=True)))
def test_every_block_is_in_its_space(size, name):
    for scale, labels in itertools.product([0.0, 3.0, 1e4], [False, True]):
        assert_in_space(*size, name, scale, labels)


def assert_in_space(num_teachers, rows, name, scale, labels):
    blocks = observed(batch_of(num_teachers, rows, scale=scale), name, labels)
    assert list(blocks) == list(OBSERVATIONS[name].columns)
    for block_name, block in blocks.items():
        assert block.dtype == np.float32
        assert block.shape[0] == rows
        assert block.flags.c_contiguous
        assert np.isfinite(block).all(), block_name
    assert all(space(blocks).contains({name: block[row] for name, block in blocks.items()}) for row in range(rows))
    assert space(blocks, rows).contains({name: block.reshape(-1) for name, block in blocks.items()})


def test_a_student_that_has_diverged_is_still_observed_in_bounds():
    for name, bad in itertools.product(OBSERVATIONS, [math.nan, math.inf, -math.inf]):
        student = ModelOutput(torch.full((3, 4), bad), torch.full((3, 6), bad))
        blocks = observed(batch_of(2, 3, student=student), name, labels=True)
        assert all(np.abs(block).max() <= BOUND for block in blocks.values())


@pytest.mark.parametrize("name", OBSERVATIONS)
@pytest.mark.parametrize("labels", [False, True])
def test_the_listed_columns_are_what_is_observed(name, labels):
    num_teachers, num_classes, width = 3, 4, 6
    blocks = observed(batch_of(num_teachers, 5, num_classes, width), name, labels)
    widths = {name: block.shape[1] for name, block in blocks.items()}
    widths["teachers"] //= 1 if name == "cls" else num_teachers
    several = {"D_1 + ... + D_K columns": 3 * 7, "D columns": width, "C columns": num_classes}
    for block, columns in OBSERVATIONS[name].columns.items():
        listed = [column for column in columns if labels or "[label]" not in column]
        assert widths[block] == sum(next((n for text, n in several.items() if column.endswith(text)), 1) for column in listed), block


def by_hand():
    """One instance of label 0: teachers (.75, .25) and (.2, .8), student (.25, .75)."""
    teacher = torch.tensor([[[0.75, 0.25], [0.2, 0.8]]])
    student = torch.tensor([[0.25, 0.75]])
    return batch_of(
        2, 1, 2, 1, labels=torch.tensor([0]), teacher_logits=teacher.log() + 1.0, student=ModelOutput(student.log(), torch.tensor([[0.3]]))
    )


def entropy(p):
    return -(p * math.log(p) + (1 - p) * math.log(1 - p)) / LN2


def test_summary_by_hand():
    blocks = observed(by_hand(), "summary", labels=True)
    mixture = (0.75 + 0.2) / 2
    assert blocks["instance"][0].tolist() == pytest.approx([0.5, 1 - mixture, entropy(mixture)], rel=1e-5)
    first, second = split_teachers(blocks, 2)[0].tolist()
    kl = [0.75 * math.log(3) - 0.25 * math.log(3), 0.2 * math.log(0.8) + 0.8 * math.log(0.8 / 0.75)]
    assert first == pytest.approx([0.75, entropy(0.75), 0.5, kl[0], 0, 1, -math.log(0.75), 1], rel=1e-5)
    assert second == pytest.approx([0.8, entropy(0.8), 0.6, kl[1], 1, 0, -math.log(0.2), 0], rel=1e-5)
    assert blocks["student"][0].tolist() == pytest.approx([0.75, entropy(0.75), 0.5, -math.log(0.25), 0], rel=1e-5)
    assert blocks["progress"].tolist() == [[0.25]]


def test_full_by_hand():
    blocks = observed(by_hand(), "full", labels=True)
    assert blocks["instance"][0].tolist() == pytest.approx([0.3])
    assert blocks["teachers"][0].tolist() == pytest.approx([0.75, 0.25, -math.log(0.75), 0.2, 0.8, -math.log(0.2)], rel=1e-5)
    assert blocks["student"][0].tolist() == pytest.approx([0.25, 0.75, -math.log(0.25)], rel=1e-5)


def test_cls_by_hand():
    """The last features alone, whatever the teachers' widths, and never a label."""
    features = (torch.tensor([[0.5, -0.25]]), torch.tensor([[12.0, 2.0, -3.0]]))
    for labels in (False, True):
        blocks = observed(replace(by_hand(), teacher_features=features), "cls", labels)
        assert {name: block[0].tolist() for name, block in blocks.items()} == {
            "teachers": [0.5, -0.25, 10.0, 2.0, -3.0],
            "student": [pytest.approx(0.3)],
            "progress": [0.25],
        }


def test_each_student_s_rows_show_its_own_progress():
    blocks = observed(batch_of(2, 6, progress=np.array([0.0, 0.25, 0.75])), "summary", labels=False)
    assert blocks["progress"].ravel().tolist() == [0.0, 0.0, 0.25, 0.25, 0.75, 0.75]


@pytest.mark.parametrize("name", ["summary", "full"])
def test_hidden_labels_change_nothing_and_shown_ones_do(name):
    batch = batch_of(3, 8)
    other = replace(batch, labels=(batch.labels + 1) % 4)
    hidden, hidden_other = (observed(each, name, labels=False) for each in (batch, other))
    assert all(np.array_equal(hidden[block], hidden_other[block]) for block in hidden)
    shown, shown_other = (observed(each, name, labels=True) for each in (batch, other))
    assert {block for block in shown if not np.array_equal(shown[block], shown_other[block])} == {"teachers", "student"}


def test_hidden_labels_are_the_same_columns_less_those_marked():
    batch = batch_of(3, 8)
    hidden, shown = (observed(batch, "summary", labels=labels) for labels in (False, True))
    assert np.array_equal(split_teachers(hidden, 3), split_teachers(shown, 3)[..., :-2])
    assert np.array_equal(hidden["student"], shown["student"][:, :-2])


def test_summary_is_free_of_classes_width_and_their_order():
    shapes = [
        {name: block.shape for name, block in observed(batch_of(3, 5, C, D), "summary", labels=True).items()}
        for C, D in ((2, 6), (10, 24), (77, 1))
    ]
    assert shapes[0] == shapes[1] == shapes[2]
    batch = batch_of(3, 8)
    order = torch.tensor([2, 0, 3, 1])
    student = ModelOutput(batch.student.logits[:, order], -batch.student.features)
    turned = replace(batch, teacher_logits=batch.teacher_logits[:, :, order], labels=order.argsort()[batch.labels], student=student)
    blocks, turned_blocks = (observed(each, "summary", labels=True) for each in (batch, turned))
    for name in ("instance", "student"):
        np.testing.assert_allclose(blocks[name], turned_blocks[name], atol=1e-5)
    majority = OBSERVATIONS["summary"].columns["teachers"].index("agrees with the majority")  # the order of classes breaks its ties
    others = [column for column in range(8) if column != majority]
    teachers, turned_teachers = (split_teachers(each, 3)[..., others] for each in (blocks, turned_blocks))
    np.testing.assert_allclose(teachers, turned_teachers, atol=1e-5)


def test_teachers_are_laid_out_in_their_order():
    batch, order = batch_of(4, 6), [2, 0, 3, 1]
    turned = replace(batch, teacher_logits=batch.teacher_logits[:, order])
    for name in ("summary", "full"):
        teachers, turned_teachers = (split_teachers(observed(each, name, labels=True), 4) for each in (batch, turned))
        np.testing.assert_allclose(teachers[:, order], turned_teachers, atol=1e-6)
        assert not np.allclose(teachers, turned_teachers)
    features = split_teachers(observed(batch, "cls", labels=True), 4)
    assert all(np.array_equal(features[:, k], batch.teacher_features[k].numpy()) for k in range(4))
    flat = observed(batch, "full", labels=False)
    one_row = {"teachers": flat["teachers"].reshape(-1)[:16]}
    assert np.array_equal(split_teachers(one_row, 4), split_teachers(flat, 4)[0])


def test_groups_are_never_observed(digits_data):
    task = digits_data.task
    groups = np.random.default_rng(0).permutation(task.train.groups)
    other = replace(digits_data, task=replace(task, train=replace(task.train, groups=groups)))
    for name in OBSERVATIONS:
        batches = [Distillation(data, distillation_settings(task), 0).observe() for data in (digits_data, other)]
        blocks, other_blocks = (observed(batch, name, labels=True) for batch in batches)
        assert all(np.array_equal(blocks[block], other_blocks[block]) for block in blocks)
    assert "groups" not in Batch.__dataclass_fields__


# Sets of your own


class Disagreement(ObservationSet):
    """How far each teacher is from the student, in ``power``; a second block only with labels."""

    columns = {"teachers": ("distance",), "student": ("right [label]",), "progress": ("part of the budget spent",)}

    def __init__(self, power=1):
        self.power = power

    def blocks(self, batch, labels):
        distance = (batch.teacher_logits - batch.student.logits[:, None]).abs().mean(2) ** self.power  # [rows, K]
        right = (batch.student.logits.argmax(1) == batch.labels).float()  # [rows]
        return {"teachers": distance} | ({"student": right} if labels else {})


class Failing(Disagreement):
    def __init__(self):
        raise IndexError("too far")


OWN = f"{__name__}:Disagreement"


def test_a_set_of_one_s_own_is_observed():
    batch = batch_of(3, 5)
    blocks = observed(batch, f"{OWN}(power=2)", labels=True)
    distance = (batch.teacher_logits - batch.student.logits[:, None]).abs().mean(2)
    np.testing.assert_allclose(blocks["teachers"], (distance**2).clamp(max=10.0), rtol=1e-6)
    assert {name: block.shape for name, block in blocks.items()} == {"teachers": (5, 3), "student": (5, 1), "progress": (5, 1)}


@pytest.mark.parametrize("labels", [False, True])
@pytest.mark.parametrize("granularity", ["instance", "batch"])
def test_a_set_of_one_s_own_makes_the_space_of_an_environment(granularity, labels):
    shown = {"observation": f"{OWN}(power=2)", "observe_labels": labels, "granularity": granularity}
    env, many = environment(**shown), slots(3 if granularity == "instance" else 1, **shown)
    widths = {"teachers": 4, "progress": 1} | ({"student": 1} if labels else {})
    assert {name: box.shape for name, box in many.single_observation_space.items()} == {name: (n,) for name, n in widths.items()}
    for blocks, *_ in rollout(env, seed=0):
        assert env.observation_space.contains(blocks)
    assert env.unwrapped.selection.settings.interface.observation == f"{OWN}(power=2)"


CANNOT_BE_MADE = [
    ("sumary", r"unknown observation 'sumary'; did you mean 'summary'\?, and no module:Class"),
    (f"{__name__}:Missing", r"observation '.*:Missing' cannot be imported \(AttributeError: .*\); give module:name"),
    ("no_such_module:Set", r"observation 'no_such_module:Set' cannot be imported \(ModuleNotFoundError: "),
    (f"{__name__}:batch_of", r"batch_of is not a subclass of kd_env\.envs\.observations\.ObservationSet; derive it from that"),
    ("kd_env.envs.observations:ObservationSet", r"ObservationSet does not define blocks; define it"),
    (f"{OWN}(strength=2)", r"got an unexpected keyword argument 'strength'; options: power"),
    ("summary(power=2)", r"observation 'summary\(power=2\)': .*options"),
]


def test_a_set_that_cannot_be_made_is_named():
    for observation, message in CANNOT_BE_MADE:
        with pytest.raises(InputError, match=message):
            environment(observation=observation)


def test_an_error_raised_inside_a_set_names_file_and_line():
    line = next(number for number, text in enumerate(Path(__file__).read_text().splitlines(), 1) if "too far" in text)
    with pytest.raises(InputError) as caught:
        environment(observation=f"{__name__}:Failing")
    assert f"IndexError: too far ({__file__}, line {line})" in str(caught.value)
