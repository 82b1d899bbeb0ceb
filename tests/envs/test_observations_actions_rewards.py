"""What an agent sees, says and is paid: pure functions, by hand and by their bounds."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from kd_env.distillation import Distillation
from kd_env.envs import actions, observations
from kd_env.envs.actions import ActionLayout
from kd_env.envs.rewards import REWARDS, StepRecord, hard_exploration, soft_exploration
from kd_env.envs.settings import settings
from kd_env.errors import InputError
from kd_env.types import Batch, ModelOutput

LN2 = math.log(2.0)
SIZES = [(1, 1), (1, 256), (2, 5), (3, 64), (4, 32), (5, 2), (8, 64), (16, 1), (16, 256)]
FEATURES = list(observations.COLUMNS)


def features_of(num_teachers, batch, num_classes=4, width=6, scale=3.0, seed=0, **changes):
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return scale * torch.randn(*shape, generator=generator)

    made = Batch(
        update=np.array([3]),
        progress=np.array([0.25]),
        example_ids=np.arange(batch),
        labels=torch.randint(num_classes, (batch,), generator=generator),
        teacher_logits=draw(batch, num_teachers, num_classes),
        teacher_features=tuple(draw(batch, 7) for _ in range(num_teachers)),
        student=ModelOutput(draw(batch, num_classes), draw(batch, width)),
    )
    return replace(made, **changes)


def teachers_of(seen, num_teachers):
    return observations.split_teachers(seen, num_teachers)


@pytest.mark.parametrize(("num_teachers", "batch"), SIZES)
@pytest.mark.parametrize("kind", FEATURES)
@pytest.mark.parametrize("labels", [False, True])
@pytest.mark.parametrize("scale", [0.0, 3.0, 1e4])
def test_every_block_is_in_its_space(num_teachers, batch, kind, labels, scale):
    seen = observations.observe(features_of(num_teachers, batch, scale=scale), kind, labels)
    assert list(seen) == list(observations.COLUMNS[kind])
    for name, block in seen.items():
        assert block.dtype == np.float32
        assert block.shape[0] == batch
        assert block.flags.c_contiguous
        assert np.isfinite(block).all(), name
    assert all(observations.space(seen).contains({name: block[row] for name, block in seen.items()}) for row in range(batch))
    assert observations.space(seen, batch).contains({name: block.reshape(-1) for name, block in seen.items()})


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("kind", FEATURES)
def test_a_student_that_has_diverged_is_still_seen_in_bounds(kind, bad):
    student = ModelOutput(torch.full((3, 4), bad), torch.full((3, 6), bad))
    seen = observations.observe(features_of(2, 3, student=student), kind, labels=True)
    assert all(np.abs(block).max() <= observations.BOUND for block in seen.values())


@pytest.mark.parametrize("kind", FEATURES)
@pytest.mark.parametrize("labels", [False, True])
def test_the_table_of_columns_is_what_is_seen(kind, labels):
    num_teachers, num_classes, width = 3, 4, 6
    seen = observations.observe(features_of(num_teachers, 5, num_classes, width), kind, labels)
    widths = {name: block.shape[1] for name, block in seen.items()}
    widths["teachers"] //= 1 if kind == "cls" else num_teachers
    several = {"D_1 + ... + D_K columns": 3 * 7, "D columns": width, "C columns": num_classes}
    for name, columns in observations.COLUMNS[kind].items():
        shown = [column for column in columns if labels or "[label]" not in column]
        assert widths[name] == sum(next((n for text, n in several.items() if column.endswith(text)), 1) for column in shown), name


def by_hand():
    """One instance of label 0: teachers (.75, .25) and (.2, .8), student (.25, .75)."""
    teacher = torch.tensor([[[0.75, 0.25], [0.2, 0.8]]])
    student = torch.tensor([[0.25, 0.75]])
    return features_of(
        2, 1, 2, 1, labels=torch.tensor([0]), teacher_logits=teacher.log() + 1.0, student=ModelOutput(student.log(), torch.tensor([[0.3]]))
    )


def entropy(p):
    return -(p * math.log(p) + (1 - p) * math.log(1 - p)) / LN2


def test_summary_by_hand():
    seen = observations.observe(by_hand(), "summary", labels=True)
    mixture = (0.75 + 0.2) / 2
    assert seen["instance"][0].tolist() == pytest.approx([0.5, 1 - mixture, entropy(mixture)], rel=1e-5)
    first, second = teachers_of(seen, 2)[0].tolist()
    kl = [0.75 * math.log(3) - 0.25 * math.log(3), 0.2 * math.log(0.8) + 0.8 * math.log(0.8 / 0.75)]
    assert first == pytest.approx([0.75, entropy(0.75), 0.5, kl[0], 0, 1, -math.log(0.75), 1], rel=1e-5)
    assert second == pytest.approx([0.8, entropy(0.8), 0.6, kl[1], 1, 0, -math.log(0.2), 0], rel=1e-5)
    assert seen["student"][0].tolist() == pytest.approx([0.75, entropy(0.75), 0.5, -math.log(0.25), 0], rel=1e-5)
    assert seen["progress"].tolist() == [[0.25]]


def test_full_by_hand():
    seen = observations.observe(by_hand(), "full", labels=True)
    assert seen["instance"][0].tolist() == pytest.approx([0.3])
    assert seen["teachers"][0].tolist() == pytest.approx([0.75, 0.25, -math.log(0.75), 0.2, 0.8, -math.log(0.2)], rel=1e-5)
    assert seen["student"][0].tolist() == pytest.approx([0.25, 0.75, -math.log(0.25)], rel=1e-5)


def test_cls_by_hand():
    """The last features alone, whatever the teachers' widths, and never a label."""
    teachers = (torch.tensor([[0.5, -0.25]]), torch.tensor([[12.0, 2.0, -3.0]]))
    for labels in (False, True):
        seen = observations.observe(replace(by_hand(), teacher_features=teachers), "cls", labels)
        assert {name: block[0].tolist() for name, block in seen.items()} == {
            "teachers": [0.5, -0.25, 10.0, 2.0, -3.0],
            "student": [pytest.approx(0.3)],
            "progress": [0.25],
        }


def test_each_student_s_rows_show_its_own_progress():
    seen = observations.observe(features_of(2, 6, progress=np.array([0.0, 0.25, 0.75])), "summary", labels=False)
    assert seen["progress"].ravel().tolist() == [0.0, 0.0, 0.25, 0.25, 0.75, 0.75]


@pytest.mark.parametrize("kind", ["summary", "full"])
def test_hidden_labels_change_nothing_and_shown_ones_do(kind):
    features = features_of(3, 8)
    other = replace(features, labels=(features.labels + 1) % 4)
    hidden, hidden_other = (observations.observe(f, kind, labels=False) for f in (features, other))
    assert all(np.array_equal(hidden[name], hidden_other[name]) for name in hidden)
    shown, shown_other = (observations.observe(f, kind, labels=True) for f in (features, other))
    assert {name for name in shown if not np.array_equal(shown[name], shown_other[name])} == {"teachers", "student"}


def test_hidden_labels_are_the_same_columns_less_those_marked():
    features = features_of(3, 8)
    hidden, shown = (observations.observe(features, "summary", labels=labels) for labels in (False, True))
    assert np.array_equal(teachers_of(hidden, 3), teachers_of(shown, 3)[..., :-2])
    assert np.array_equal(hidden["student"], shown["student"][:, :-2])


def test_summary_is_free_of_classes_width_and_their_order():
    shapes = [
        {name: block.shape for name, block in observations.observe(features_of(3, 5, C, D), "summary", labels=True).items()}
        for C, D in ((2, 6), (10, 24), (77, 1))
    ]
    assert shapes[0] == shapes[1] == shapes[2]
    features = features_of(3, 8)
    order = torch.tensor([2, 0, 3, 1])
    student = ModelOutput(features.student.logits[:, order], -features.student.features)
    turned = replace(
        features, teacher_logits=features.teacher_logits[:, :, order], labels=order.argsort()[features.labels], student=student
    )
    seen, seen_turned = (observations.observe(f, "summary", labels=True) for f in (features, turned))
    for name in ("instance", "student"):
        np.testing.assert_allclose(seen[name], seen_turned[name], atol=1e-5)
    majority = observations.COLUMNS["summary"]["teachers"].index("agrees with the majority")  # the order of classes breaks its ties
    rest = [column for column in range(8) if column != majority]
    np.testing.assert_allclose(teachers_of(seen, 3)[..., rest], teachers_of(seen_turned, 3)[..., rest], atol=1e-5)


def test_teachers_are_laid_out_in_their_order():
    features = features_of(4, 6)
    order = [2, 0, 3, 1]
    turned = replace(features, teacher_logits=features.teacher_logits[:, order])
    for kind in ("summary", "full"):
        seen, seen_turned = (teachers_of(observations.observe(f, kind, labels=True), 4) for f in (features, turned))
        np.testing.assert_allclose(seen[:, order], seen_turned, atol=1e-6)
        assert not np.allclose(seen, seen_turned)
    widths = teachers_of(observations.observe(features, "cls", labels=True), 4)
    assert all(np.array_equal(widths[:, k], features.teacher_features[k].numpy()) for k in range(4))
    flat = observations.observe(features, "full", labels=False)
    assert np.array_equal(observations.split_teachers({"teachers": flat["teachers"].reshape(-1)[:16]}, 4), teachers_of(flat, 4)[0])


def test_groups_are_never_seen(digits_data):
    task = digits_data.task
    groups = np.random.default_rng(0).permutation(task.train.groups)
    other = replace(digits_data, task=replace(task, train=replace(task.train, groups=groups)))
    for kind in FEATURES:
        seen = [observations.observe(Distillation(m, settings(task), 0).observe(), kind, labels=True) for m in (digits_data, other)]
        assert all(np.array_equal(seen[0][name], seen[1][name]) for name in seen[0])
    assert "groups" not in Batch.__dataclass_fields__


# Actions


@pytest.mark.parametrize("rows", [1, 2, 32])
@pytest.mark.parametrize("num_teachers", [1, 2, 5, 16])
@pytest.mark.parametrize("kind", ["subset", "one", "weights"])
def test_sampled_actions_give_rows_on_the_simplex_or_empty_ones(kind, num_teachers, rows):
    space = actions.space(kind, ActionLayout(num_teachers, ()), rows)
    space.seed(0)
    for _ in range(5):
        weights = actions.to_weights(kind, space.sample(), num_teachers, rows)
        assert weights.shape == (rows, num_teachers)
        assert weights.dtype == np.float32
        assert (weights >= 0).all()
        sums = weights.sum(1)
        empty = sums == 0
        assert kind == "subset" or not empty.any()
        np.testing.assert_allclose(sums[~empty], 1.0, atol=1e-6)


def test_subset_shares_equally_and_nobody_is_legal():
    weights = actions.to_weights("subset", np.array([[1, 0, 1, 0], [0, 0, 0, 0], [1, 1, 1, 1], [0, 0, 0, 1]]), 4, 4)
    assert weights.tolist() == [[0.5, 0, 0.5, 0], [0, 0, 0, 0], [0.25] * 4, [0, 0, 0, 1]]


def test_one_is_one_hot():
    assert actions.to_weights("one", np.array([2, 0]), 3, 2).tolist() == [[0, 0, 1], [1, 0, 0]]
    assert actions.to_weights("one", np.int64(1), 3, 1).tolist() == [[0, 1, 0]]


def test_weights_are_a_sharp_softmax_by_hand():
    weights = actions.to_weights("weights", np.array([0.1 * math.log(3), 0.0, 0.4, 0.4, 1.0, -1.0]), 2, 3)
    np.testing.assert_allclose(weights[:2], [[0.75, 0.25], [0.5, 0.5]], rtol=1e-6)
    np.testing.assert_allclose(weights[2], [1.0, math.exp(-20)], rtol=1e-5)


@pytest.mark.parametrize("num_teachers", [1, 2, 4, 8])
def test_weights_survive_the_way_to_an_action_and_back(num_teachers):
    weights = np.random.default_rng(0).dirichlet(np.ones(num_teachers), 200)
    action = actions.from_weights(weights)
    assert action.dtype == np.float32
    assert actions.space("weights", ActionLayout(num_teachers, ()), 200).contains(action.reshape(-1))
    np.testing.assert_allclose(actions.to_weights("weights", action, num_teachers, 200), weights, atol=1e-6)


def test_one_hot_weights_survive_nearly():
    np.testing.assert_allclose(actions.to_weights("weights", actions.from_weights(np.eye(4)), 4, 4), np.eye(4), atol=1e-8)


@pytest.mark.parametrize(
    ("kind", "action", "says"),
    [
        ("soft", np.zeros(5), "expected 4 numbers for 2 decisions over 2 knowledge types"),
        ("soft", [0, 0, 0, 1.01], r"in \[-1, 1\]"),
        ("soft", [0, 0, 0, math.nan], "NaN"),
        ("hard", [0, 1, 2, 0], "zeros and ones"),
        ("hard", [0, 1, -1, 0], "zeros and ones"),
        ("hard", np.zeros((4, 1)), r"expected shape \(2, 2\)"),
        ("joint", np.zeros(15), r"expected 16 .* 3 teachers \+ 2 knowledge \+ 1 kd_weight \+ 1 temperature \+ 1 abstain"),
        ("joint", np.zeros((8, 2)), r"expected shape \(2, 8\)"),
        ("joint", [*np.zeros(15), math.inf], "infinite"),
        ("joint", [*np.zeros(15), -1.01], r"in \[-1, 1\]"),
    ],
)
def test_actions_about_knowledge_outside_the_space_are_refused(kind, action, says):
    with pytest.raises(ValueError, match=says):
        actions.decode(kind, np.asarray(action), ActionLayout(3, ("response", "label")), 2)


@pytest.mark.parametrize(
    ("text", "says"),
    [("", "name at least one of teachers, knowledge"), (" , ", "name at least one"), ("teachers,kd_wieght", "did you mean 'kd_weight'")],
)
def test_factors_that_are_none_are_refused(text, says):
    with pytest.raises(InputError, match=says):
        actions.parse_factors(text)


def test_factors_come_in_one_order():
    assert actions.parse_factors("abstain, teachers,abstain") == ("teachers", "abstain")


@pytest.mark.parametrize(
    ("kind", "action", "says"),
    [
        ("subset", np.zeros(5), "expected 6 numbers"),
        ("subset", np.zeros((2, 4)), "expected 6 numbers"),
        ("subset", np.zeros((3, 2)), r"expected shape \(2, 3\)"),
        ("subset", [0, 1, 2, 0, 1, 0], "zeros and ones"),
        ("subset", [0, 1, 0.5, 0, 1, 0], "zeros and ones"),
        ("subset", [0, 1, -1, 0, 1, 0], "zeros and ones"),
        ("subset", [0, 1, math.nan, 0, 1, 0], "NaN"),
        ("one", [0], "expected 2 numbers"),
        ("one", [0, 3], r"teachers 0\.\.2"),
        ("one", [0, -1], r"teachers 0\.\.2"),
        ("one", [0, 1.5], r"teachers 0\.\.2"),
        ("one", [0, math.inf], "infinite"),
        ("weights", np.zeros(7), "expected 6 numbers"),
        ("weights", np.zeros((3, 2)), r"expected shape \(2, 3\)"),
        ("weights", [0, 0, 0, math.nan, 0, 0], "NaN"),
        ("weights", [0, 0, 0, math.inf, 0, 0], "infinite"),
        ("weights", [0, 0, 0, 1.01, 0, 0], r"in \[-1, 1\]"),
        ("weights", [0, 0, 0, -1.01, 0, 0], r"in \[-1, 1\]"),
    ],
)
def test_actions_outside_the_space_are_refused(kind, action, says):
    with pytest.raises(ValueError, match=says):
        actions.to_weights(kind, np.asarray(action), 3, 2)


# Rewards

RECORD = StepRecord(torch.full((3,), 0.25), torch.full((3,), 0.8), torch.tensor([1.0, 2.0, 0.5]), torch.tensor([0.5, 0.0, 4.0]), mix=0.75)


@pytest.mark.parametrize(
    ("name", "paid"),
    [
        ("dev_improvement", [0.25, 0.25, 0.25]),
        ("student_loss", [-1.0, -2.0, -0.5]),
        ("student_and_distillation_loss", [-1.5, -2.0, -4.5]),
        ("mixed", [0.75 * -1.5 + 0.2, 0.75 * -2.0 + 0.2, 0.75 * -4.5 + 0.2]),
    ],
)
def test_rewards_by_hand(name, paid):
    assert REWARDS[name](RECORD).tolist() == pytest.approx(paid)


def test_every_reward_is_tried_here_and_is_one_of_the_settings(digits_data):
    for name in REWARDS:
        assert settings(digits_data.task, reward=name).reward == name
    assert set(REWARDS) == {"dev_improvement", "student_loss", "student_and_distillation_loss", "mixed"}


def test_the_bonus_for_soft_actions_by_hand():
    """One minus the cosine to the phase before; an action of zeros is like none."""
    now = np.array([[1.0, 0.0], [0.5, 0.5], [0.6, 0.8], [0.0, 0.0], [0.3, 0.4]])
    before = np.array([[0.0, 0.2], [1.0, 1.0], [1.0, 0.0], [1.0, 0.0], [0.0, 0.0]])
    np.testing.assert_allclose(soft_exploration(now, before), [1.0, 0.0, 0.4, 1.0, 1.0], atol=1e-12)


def test_the_bonus_for_hard_actions_by_hand():
    assert hard_exploration(np.array([1, 4, 2])).tolist() == [1.0, 0.5, pytest.approx(2**-0.5)]


def test_mixed_has_its_two_ends():
    assert REWARDS["mixed"](replace(RECORD, mix=1.0)).tolist() == REWARDS["student_and_distillation_loss"](RECORD).tolist()
    assert REWARDS["mixed"](replace(RECORD, mix=0.0)).tolist() == pytest.approx([0.8] * 3)
