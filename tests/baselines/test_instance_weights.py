"""Rules that weigh the teachers of each instance, against values worked out by hand."""

import math

import pytest
import torch
from weighing import SMALL_TEXT, acted_weights, drawn, env_and_policy, extreme, logits_of

from baselines import correlation, ebkd, majority_sign, mt_bert
from baselines.correlation import Correlation
from baselines.ebkd import EBKD
from baselines.majority_sign import MajoritySign
from baselines.mt_bert import MTBert
from kd_env.benchmark.run_trial import run_trial
from kd_env.benchmark.trial import Trial
from kd_env.errors import InputError
from kd_env.policies import registry
from kd_env.testing import check_policy

FORMULAS = {
    "ebkd": lambda logits, student, labels: ebkd.weights(logits),
    "mt_bert": lambda logits, student, labels: mt_bert.weights(logits, labels),
    "majority_sign": lambda logits, student, labels: majority_sign.weights(logits, student),
    "correlation": lambda logits, student, labels: correlation.weights(logits, student),
}


# all of them


@pytest.mark.parametrize("name", FORMULAS)
@pytest.mark.parametrize("teachers", [2, 3, 6])
def test_rows_are_on_the_simplex_and_follow_a_permutation(name, teachers):
    logits, student, labels = drawn(teachers, seed=teachers)
    weights = FORMULAS[name](logits, student, labels)
    assert weights.shape == (40, teachers)
    assert weights.dtype == logits.dtype
    assert (weights >= 0).all()
    assert weights.sum(1).tolist() == pytest.approx([1.0] * 40)
    uniform = torch.allclose(weights, torch.full_like(weights, 1 / teachers), atol=0.01)
    assert uniform == (name == "majority_sign" and teachers == 2), "it tells teachers apart; of two, a majority is both"
    order = torch.randperm(teachers, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(FORMULAS[name](logits[:, order], student, labels), weights[:, order])


@pytest.mark.parametrize("name", FORMULAS)
def test_a_duplicated_teacher_has_its_double_s_weight(name):
    logits, student, labels = drawn(3)
    weights = FORMULAS[name](logits[:, [0, 1, 2, 1]], student, labels)
    assert torch.equal(weights[:, 1], weights[:, 3])


@pytest.mark.parametrize("name", FORMULAS)
@pytest.mark.parametrize("teachers", [2, 3, 5])
def test_extreme_teachers_and_students_give_finite_weights(name, teachers):
    weights = FORMULAS[name](*extreme(teachers))
    assert weights.dtype == torch.float32
    assert (weights >= 0).all()
    assert weights.sum(1).tolist() == pytest.approx([1.0] * 6)


@pytest.mark.parametrize("name", ["mt_bert", "majority_sign", "correlation"])
def test_one_teacher_has_all_the_weight(name):
    assert (FORMULAS[name](*drawn(1)) == 1.0).all()
    assert (FORMULAS[name](*extreme(1)) == 1.0).all()


@pytest.mark.parametrize("name", FORMULAS)
def test_the_policy_acts_on_its_formula_at_the_temperature_of_the_loss(name):
    env, policy = env_and_policy(name, temperature=3.0)
    batch = env.selection.distillation.observe()
    at = 3.0 if name in ("majority_sign", "correlation") else 1.0
    expected = FORMULAS[name](batch.teacher_logits / at, batch.student.logits / at, batch.labels)
    # the action cannot say less than exp(-20) of the largest weight
    assert acted_weights(env, policy) == pytest.approx(expected.numpy(), abs=1e-6)


@pytest.mark.parametrize("name", FORMULAS)
def test_a_text_student_is_taught(name, tmp_path):
    record = run_trial(Trial(SMALL_TEXT, name, 0, settings={"updates": 2}), tmp_path)
    assert record["access"] == {"ebkd": "teacher outputs", "mt_bert": "train labels"}.get(name, "student outputs")
    assert sum(record["selection_rate"]) > 0.99


@pytest.mark.parametrize("policy", [EBKD, MTBert, MajoritySign, Correlation])
def test_it_keeps_to_the_protocol(policy):
    check_policy(policy)


def test_every_policy_names_its_paper():
    for name in [*registry.POLICIES, *(f"sb3:{algorithm}" for algorithm in registry.STABLE_BASELINES3)]:
        assert isinstance(registry.find(name).make.paper, str), name
    assert registry.find("camkd").make.paper == "Zhang et al. 2022, arXiv 2201.00007"
    assert registry.find("akd_hard").make.paper == "Wang et al. 2022, arXiv 2302.00444"
    assert registry.find("router").make.paper == registry.find("majority_sign").make.paper == ""


# ebkd


def test_ebkd_of_two_teachers_by_hand():
    # entropies ln 2 and 0, shares (1, 0), 1 - that, over K - 1 = 1
    assert ebkd.weights(torch.tensor([[[0.0, 0.0], [50.0, -1e4]]]))[0].tolist() == pytest.approx([0.0, 1.0])


def test_ebkd_of_three_teachers_by_hand():
    half, quarter = [0.5, 0.5, 1e-300, 1e-300], [0.25] * 4
    # entropies (2, 1, 1) ln 2, shares (1/2, 1/4, 1/4), (1 - share) / 2
    assert ebkd.weights(logits_of(quarter, half, half))[0].tolist() == pytest.approx([0.25, 0.375, 0.375])


def test_ebkd_is_uniform_where_all_are_utterly_sure():
    assert ebkd.weights(1e4 * torch.eye(3)[None])[0].tolist() == pytest.approx([1 / 3] * 3)


def test_ebkd_gives_the_only_unsure_teacher_nothing():
    sure = [1e4, 0.0, 0.0]
    assert ebkd.weights(torch.tensor([[sure, [0.0, 0.0, 0.0], sure]]))[0].tolist() == pytest.approx([0.5, 0.0, 0.5])


def test_ebkd_needs_two_teachers():
    with pytest.raises(ValueError, match="ebkd needs at least two teachers"):
        ebkd.weights(torch.zeros(3, 1, 4))
    with pytest.raises(InputError, match=r"policy 'ebkd' needs at least 2 teachers, pool .* has 1"):
        env_and_policy("ebkd", teachers="digits/experts/upright")


# mt_bert


def test_mt_bert_of_two_teachers_by_hand():
    e1, e3 = math.exp(-1), math.exp(-3)
    # cross-entropies 1 and 3, so 1/2 and 1/4
    assert mt_bert.weights(logits_of([e1, 1 - e1], [e3, 1 - e3]), torch.tensor([0]))[0].tolist() == pytest.approx([2 / 3, 1 / 3])


def test_mt_bert_of_three_teachers_by_hand():
    e1, e3 = math.exp(-1), math.exp(-3)
    logits = logits_of([1 - e1, e1], [1e-300, 1.0], [1 - e3, e3])
    # cross-entropies (1, 0, 3), so (1/2, 1, 1/4) over 7/4
    assert mt_bert.weights(logits, torch.tensor([1]))[0].tolist() == pytest.approx([2 / 7, 4 / 7, 1 / 7])


def test_mt_bert_hardly_hears_who_is_utterly_wrong():
    # cross-entropies 0 and 9,999: 1 and 1/10,000
    logits = torch.tensor([[[9_999.0, 0.0], [0.0, 9_999.0]]], dtype=torch.float64)
    assert mt_bert.weights(logits, torch.tensor([0]))[0].tolist() == pytest.approx([10_000 / 10_001, 1 / 10_001])


# majority_sign


def voted(student, *teachers):
    return majority_sign.weights(logits_of(*teachers), torch.tensor([student], dtype=torch.float64).log())[0].tolist()


def test_majority_sign_by_hand():
    # pulls (.2, -.1, -.1), (.1, -.1, 0), (-.2, -.1, .3): votes +, -, tied; with the vote .3, .2, -.2 + .1
    assert voted([0.4, 0.3, 0.3], [0.6, 0.2, 0.2], [0.5, 0.2, 0.3], [0.2, 0.2, 0.6]) == [0.5, 0.5, 0.0]


def test_a_teacher_agrees_by_mass_and_not_by_the_number_of_classes():
    student, most = [0.25] * 4, [0.35, 0.35, 0.15, 0.15]  # pulls (.1, .1, -.1, -.1), twice, so the vote is +, +, -, -
    # pulls (.02, .02, .2, -.24): three classes of four with the vote, .02 + .02 - .2 + .24 = .08
    assert voted(student, [0.27, 0.27, 0.45, 0.01], most, most) == [1 / 3] * 3
    # pulls (-.24, .2, .02, .02): one class of four, -.24 + .2 - .02 - .02 = -.08
    assert voted(student, [0.01, 0.45, 0.27, 0.27], most, most) == [0.0, 0.5, 0.5]
    # pulls (.03, .03, -.12, .06): three classes of four, .03 + .03 + .12 - .06; pulls (.02, -.22, -.01, .21): two, but -.4
    assert voted(student, [0.28, 0.28, 0.13, 0.31], [0.27, 0.03, 0.24, 0.46], most, most) == [1 / 3, 0.0, 1 / 3, 1 / 3]
    # pulls (.2, -.02, .02, -.2): two classes of four, .2 - .02 - .02 + .2
    assert voted(student, [0.45, 0.23, 0.27, 0.05], most, most) == [1 / 3] * 3


def test_two_teachers_who_pull_apart_are_tied_and_averaged():
    assert voted([0.5, 0.5], [0.9, 0.1], [0.3, 0.7]) == [0.5, 0.5]


def test_with_two_classes_the_majority_is_followed():
    assert voted([0.5, 0.5], [0.99, 0.01], [0.45, 0.55], [0.4, 0.6]) == [0.0, 0.5, 0.5]


def test_a_teacher_that_equals_the_student_votes_for_nothing_and_agrees():
    student = [0.2, 0.5, 0.3]
    assert voted(student, student, [0.3, 0.4, 0.3], [0.1, 0.6, 0.3]) == [1 / 3] * 3
    assert voted(student, student, [0.3, 0.4, 0.3], [0.3, 0.4, 0.3], [0.1, 0.6, 0.3]) == [1 / 3, 1 / 3, 1 / 3, 0.0]


def test_rounding_does_not_vote():
    """Three copies of the student whose probabilities differ in the last bits do not outvote the teacher who pulls."""
    _, student, _ = drawn(1)
    logits = torch.stack([student + 0.1, student + 0.3, student + 0.7, student.flip(1)], 1)
    assert (majority_sign.weights(logits, student) == 0.25).all()


def test_where_nobody_agrees_all_teach():
    """Each is outvoted on the two classes where most of its mass is."""
    s, much, little = 1 / 6, 0.12, 0.03
    down = [s - much, s + little, s + little]  # up by two votes to one, in each of the first three classes
    up = [s + much, s - little, s - little]
    teachers = [[*down, *up], [*down[1:], down[0], *up[1:], up[0]], [down[1], down[0], down[2], up[1], up[0], up[2]]]
    # with the vote 2 (.03 + .03 - .12) < 0, for each
    assert voted([s] * 6, *teachers) == [1 / 3] * 3
    assert voted([s] * 6, *teachers, teachers[0], teachers[0]) == [1 / 3, 0.0, 0.0, 1 / 3, 1 / 3], "now the first has the votes"


# correlation


def test_correlation_of_two_teachers_by_hand():
    student = [0.5, 0.3, 0.2]
    opposite = [2 / 3 - p for p in student]  # on the other side of the mean: correlation -1
    shares = correlation.weights(logits_of(student, opposite), torch.tensor([student]).double().log(), t=0.5)
    assert shares[0].tolist() == pytest.approx([math.exp(4) / (math.exp(4) + 1), 1 / (math.exp(4) + 1)])


def test_correlation_of_three_teachers_by_hand():
    # centred (2, -1, -1)/12, (-1, 2, -1)/12 and 0: products (6, -3, 0)/144, over 6/144
    logits = logits_of([0.5, 0.25, 0.25], [0.25, 0.5, 0.25], [1 / 3] * 3)
    shares = correlation.weights(logits, torch.tensor([[0.5, 0.25, 0.25]]).double().log(), t=1.0)[0]
    assert shares.tolist() == pytest.approx((torch.tensor([1.0, -0.5, 0.0]).double().softmax(0)).tolist())


def test_a_constant_student_correlates_with_nobody():
    for classes in range(2, 60):  # of some, the mean of equal probabilities is off by a bit
        logits, _, _ = drawn(3, classes=classes)
        logits[:, 0] = -0.3  # as constant as the student
        assert correlation.weights(logits, torch.full((40, classes), 0.7)).sub(1 / 3).abs().max() < 1e-15, classes


@pytest.mark.parametrize("t", [0.0, -1.0, math.inf, math.nan])
def test_correlation_needs_a_sharpness(t):
    with pytest.raises(ValueError, match="needs a finite t above 0"):
        correlation.weights(torch.zeros(1, 2, 3), torch.zeros(1, 3), t=t)


@pytest.mark.parametrize("t", ["0", "-1", "sharp", "true"])
def test_the_correlation_policy_refuses_what_is_no_sharpness(t):
    with pytest.raises(InputError, match=r"correlation\(t=.*\): expected a number above 0"):
        env_and_policy(f"correlation(t={t})")
