"""The direction that suits all teachers: by hand, by the conditions of optimality, and against a general solver."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from weighing import SMALL_TEXT, acted_weights, decided, env_and_policy, extreme

from baselines import aekd
from baselines.box_simplex import shortest_mixture
from kd_env.benchmark.run_trial import make_env, run_trial
from kd_env.benchmark.trial import Trial
from kd_env.errors import InputError
from kd_env.knowledge.response import per_teacher
from kd_env.policies import make_policy, registry
from kd_env.testing import check_policy

BOUNDS = [0.15, 0.3, 0.6, 1.0, 5.0]


def of(*means):
    """Mean gradients ``K x [C]`` as those of two instances ``[K, 2, C]`` whose mean they are."""
    mean = torch.tensor(means, dtype=torch.float64)
    return torch.stack([mean + 7.0, mean - 7.0], 1)


def drawn(teachers, classes, seed):
    return np.random.default_rng(seed).normal(size=(teachers, classes)) + 0.3


def as_gradients(vectors):
    return torch.from_numpy(vectors)[:, None]


# by hand


@pytest.mark.parametrize(("bound", "expected"), [(1.0, [0.25, 0.75]), (0.75, [0.25, 0.75]), (0.6, [0.4, 0.6]), (0.5, [0.5, 0.5])])
def test_two_opposed_teachers_by_hand(bound, expected):
    # 3 a - (1 - a) is zero at a = 1/4; the second may have no more than the bound
    assert aekd.weights(of([3.0, -3.0], [-1.0, 1.0]), bound).tolist() == pytest.approx(expected, abs=1e-7)


def test_the_bound_is_six_tenths_by_default():
    assert aekd.weights(of([3.0, -3.0], [-1.0, 1.0])).tolist() == pytest.approx([0.4, 0.6], abs=1e-7)


@pytest.mark.parametrize(
    ("bound", "expected"),
    [
        (1.0, [4 / 7, 2 / 7, 1 / 7]),  # right angles, squared lengths 1, 2, 4: in proportion to 1, 1/2, 1/4
        (0.6, [4 / 7, 2 / 7, 1 / 7]),
        (0.5, [0.5, 1 / 3, 1 / 6]),  # the first at its bound, the rest two to one
        (0.4, [0.4, 0.4, 0.2]),  # the second just at its bound
        (0.35, [0.35, 0.35, 0.3]),
    ],
)
def test_three_teachers_at_right_angles_by_hand(bound, expected):
    weights = aekd.weights(of([1.0, 0.0, 0.0], [0.0, 2**0.5, 0.0], [0.0, 0.0, 2.0]), bound)
    assert weights.tolist() == pytest.approx(expected, abs=1e-7)


def test_a_teacher_behind_a_shorter_one_has_nothing():
    # (1, 0) is shorter than any mixture with (2, 1)
    assert aekd.weights(of([1.0, 0.0], [2.0, 1.0]), bound=1.0).tolist() == pytest.approx([1.0, 0.0], abs=1e-7)


@pytest.mark.parametrize("bound", [0.01, 1 / 3])
def test_a_bound_that_leaves_no_mixture_is_raised_to_one_over_k(bound):
    assert aekd.weights(of([1.0, 0.0], [0.0, 5.0], [3.0, 3.0]), bound).tolist() == pytest.approx([1 / 3] * 3)


@pytest.mark.parametrize("bound", [0.0, -0.6, float("nan")])
def test_a_bound_that_is_none_is_refused(bound):
    with pytest.raises(ValueError, match="aekd needs a bound above 0"):
        aekd.weights(of([1.0, 0.0], [0.0, 5.0]), bound)


def test_one_teacher_has_all_the_weight():
    assert aekd.weights(of([1.0, -1.0])).tolist() == [1.0]


def test_teachers_without_a_gradient_share():
    assert aekd.weights(torch.zeros(4, 3, 5)).tolist() == [0.25] * 4


# duplicates


def test_duplicated_teachers_share_what_the_one_would_have():
    twice = aekd.weights(of([3.0, -3.0], [-1.0, 1.0], [-1.0, 1.0]), bound=1.0)
    assert twice.tolist() == pytest.approx([0.25, 0.375, 0.375], abs=1e-6)
    assert aekd.weights(of(*[[2.0, -1.0, -1.0]] * 5)).tolist() == pytest.approx([0.2] * 5)


@pytest.mark.parametrize("bound", BOUNDS)
@pytest.mark.parametrize("seed", range(5))
def test_a_duplicate_of_any_teacher_has_equal_weight(seed, bound):
    vectors = drawn(4, 6, seed)[[0, 1, 2, 3, 1, 3]]
    weights = aekd.weights(as_gradients(vectors), bound)
    assert weights[[1, 3]].tolist() == pytest.approx(weights[[4, 5]].tolist(), abs=1e-5)


# optimality


@pytest.mark.parametrize("bound", BOUNDS)
@pytest.mark.parametrize(("teachers", "classes"), [(2, 2), (3, 5), (4, 10), (8, 3), (12, 20), (16, 2)])
def test_the_conditions_of_optimality_hold(teachers, classes, bound):
    """Slopes of the squared length: equal between the limits, no less at 0, no more at the bound."""
    allowed = max(bound, 1 / teachers)
    for seed in range(8):
        vectors = drawn(teachers, classes, seed)
        vectors[-1] = vectors[0] if seed % 2 else vectors[-1]
        weights = aekd.weights(as_gradients(vectors), bound).numpy()
        assert weights.sum() == pytest.approx(1.0, abs=1e-12)
        assert weights.min() >= 0.0
        assert weights.max() <= allowed + 1e-12
        slope = vectors @ (vectors.T @ weights) / (vectors**2).sum(1).mean()
        between = (weights > 1e-9) & (weights < allowed - 1e-9)
        assert not between.any() or slope[between] == pytest.approx(slope[between].mean(), abs=1e-7)
        level = slope[between].mean() if between.any() else slope[weights > 1e-9].max()
        assert (slope[weights <= 1e-9] >= level - 1e-7).all()
        assert (slope[weights >= allowed - 1e-9] <= level + 1e-7).all()


@pytest.mark.parametrize("bound", [0.3, 0.6, 1.0])
def test_a_general_solver_finds_nothing_shorter(bound):
    for seed in range(10):
        gram = (vectors := drawn(5, 4, seed)) @ vectors.T
        weights = shortest_mixture(gram, bound)
        general = minimize(
            lambda a, gram=gram: a @ gram @ a,
            np.full(5, 0.2),
            jac=lambda a, gram=gram: 2 * gram @ a,
            method="SLSQP",
            bounds=[(0, bound)] * 5,
            constraints={"type": "eq", "fun": lambda a: a.sum() - 1, "jac": lambda a: np.ones(5)},
            options={"ftol": 1e-14, "maxiter": 500},
        )
        assert weights @ gram @ weights <= general.fun + 1e-7 * gram.trace()


@pytest.mark.parametrize("teachers", [2, 3, 7])
def test_weights_follow_a_permutation(teachers):
    vectors = drawn(teachers, 5, teachers)
    order = np.random.default_rng(0).permutation(teachers)
    weights = aekd.weights(as_gradients(vectors), 0.6)
    assert aekd.weights(as_gradients(vectors[order]), 0.6).tolist() == pytest.approx(weights[order].tolist(), abs=1e-7)


@pytest.mark.parametrize("scale", [1e-12, 1e-3, 1e6])
def test_the_size_of_the_gradients_does_not_matter(scale):
    vectors = drawn(4, 6, 0)
    expected = aekd.weights(as_gradients(vectors), 0.6)
    assert aekd.weights(as_gradients(scale * vectors), 0.6).tolist() == pytest.approx(expected.tolist(), abs=1e-7)


# the policy


def test_the_gradients_are_those_of_the_response_loss():
    generator = torch.Generator().manual_seed(0)
    teacher_logits = torch.randn(5, 3, 4, generator=generator, dtype=torch.float64)
    student = torch.randn(5, 4, generator=generator, dtype=torch.float64).requires_grad_()
    losses = per_teacher(student, teacher_logits, 3.0)  # [B, K]
    expected = torch.stack([torch.autograd.grad(losses[:, k].sum(), student, retain_graph=True)[0] for k in range(3)])
    assert torch.allclose(aekd.gradients(teacher_logits, student.detach(), 3.0), expected)


def test_gradients_by_hand():
    # at temperature 2: student (.5, .5), teacher (.75, .25), so 2 (-.25, .25)
    teacher_logits = 2 * torch.tensor([[[0.75, 0.25]]], dtype=torch.float64).log()
    assert aekd.gradients(teacher_logits, torch.zeros(1, 2, dtype=torch.float64), 2.0)[0, 0].tolist() == pytest.approx([-0.5, 0.5])


@pytest.mark.parametrize("teachers", [1, 2, 3, 5])
def test_extreme_teachers_give_finite_weights(teachers):
    teacher_logits, student, _ = extreme(teachers)
    weights = aekd.weights(aekd.gradients(teacher_logits, student, 1.0))
    assert weights.dtype == torch.float32
    assert (weights >= 0).all()
    assert float(weights.sum()) == pytest.approx(1.0)


def test_every_instance_of_a_mini_batch_has_the_same_weights():
    env, policy = env_and_policy("aekd", temperature=3.0)
    batch = env.selection.distillation.observe()
    expected = aekd.weights(aekd.gradients(batch.teacher_logits, batch.student.logits, 3.0)).numpy()
    weights = acted_weights(env, policy)
    assert weights == pytest.approx(np.tile(expected, (32, 1)), abs=1e-6)
    assert weights.max() <= 0.6 + 1e-6


def test_a_bound_of_the_policy_is_kept():
    env, policy = env_and_policy("aekd(bound=0.3)")
    assert acted_weights(env, policy).max() == pytest.approx(0.3, abs=1e-6)


def test_students_of_a_population_have_weights_of_their_own():
    env = make_env(Trial("digits", "aekd", 0, settings={"updates": 4}), 2)
    env.reset(seed=0)
    batch = env.selection.distillation.observe()
    gradients = aekd.gradients(batch.teacher_logits, batch.student.logits, env.selection.settings.distillation.temperature)
    expected = [aekd.weights(part, 1.0).tolist() for part in (gradients[:, :32], gradients[:, 32:])]
    assert expected[0] != expected[1]
    weights = decided(make_policy(aekd.AEKD, env, 0, bound=1.0))  # a policy of both students
    assert weights[[0, -1]].tolist() == [pytest.approx(row) for row in expected]
    each = [registry.find("aekd(bound=1.0)").build(env, 0, student) for student in (0, 1)]  # a policy for each student
    assert [decided(policy)[0].tolist() for policy in each] == [pytest.approx(row) for row in expected]


@pytest.mark.parametrize("bound", ["0", "-1", "half", "true"])
def test_the_policy_refuses_what_is_no_bound(bound):
    with pytest.raises(InputError, match=r"aekd\(bound=.*\): expected a number above 0"):
        env_and_policy(f"aekd(bound={bound})")


@pytest.mark.long
def test_it_keeps_to_the_protocol_and_teaches_a_text_student(tmp_path):
    check_policy(aekd.AEKD)
    record = run_trial(Trial(SMALL_TEXT, "aekd", 0, settings={"updates": 2}), tmp_path)
    assert record["access"] == "gradient"
    assert max(record["selection_rate"]) > 0.0
