"""Relations between examples: values worked out by hand, and the papers' formulas by loops."""

import itertools
import math

import pytest
import torch
from comparing import draw, loss_of, output_of

from kd_env.errors import InputError
from kd_env.knowledge.similarity import Similarity


def test_distance_by_hand():
    student, teacher = [[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]], [[0.0], [1.0], [3.0]]
    # student 3, 4, 5 over 4: .75, 1, 1.25; teacher 1, 3, 2 over 2: .5, 1.5, 1; half of .0625, .25 and .0625
    assert loss_of(Similarity(), student, teacher).tolist() == pytest.approx([0.078125, 0.03125, 0.078125])


def test_distance_is_linear_beyond_one():
    student, teacher = [[0.0], [2.0], [1.0]], [[0.0], [0.0], [1.0]]
    # student 2, 1, 1 over 4/3: 1.5, .75, .75; teacher 0, 1, 1 over 2/3: 0, 1.5, 1.5; 1.5 - .5 = 1 and twice .75^2 / 2 = .28125
    assert loss_of(Similarity(), student, teacher).tolist() == pytest.approx([0.640625, 0.640625, 0.28125])


def test_angle_by_hand():
    student, teacher = [[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]], [[0.0, 0.0], [2.0, 0.0], [1.0, 3**0.5]]
    # cosines of 90, 45, 45 degrees against 60, 60, 60; .5^2 / 2 and (.70710678 - .5)^2 / 2
    assert loss_of(Similarity("angle"), student, teacher).tolist() == pytest.approx([0.125, 0.0214466, 0.0214466], abs=1e-7)


def test_preserving_by_hand():
    student, teacher = [[1.0, 0.0], [0.0, 3.0]], [[1.0], [1.0]]
    # rows (1, 0), (0, 1) against (.70710678, .70710678) twice: (.08578644 + .5) / 2
    assert loss_of(Similarity("preserving"), student, teacher).tolist() == pytest.approx([0.29289322] * 2)


def test_mean_distance_loss_is_rkd_over_the_pairs():
    student, teacher = draw(6, 3), draw(6, 5, seed=1)
    pairs = list(itertools.permutations(range(6), 2))

    def distances(points):
        plain = [math.dist(points[i], points[j]) for i, j in pairs]
        return [value / (sum(plain) / 30) for value in plain]

    gaps = [abs(s - t) for s, t in zip(distances(student.tolist()), distances(teacher.tolist()), strict=True)]
    expected = sum(gap**2 / 2 if gap < 1 else gap - 0.5 for gap in gaps) / 30
    assert float(Similarity().loss(output_of(features=student), teacher).mean()) == pytest.approx(expected)


def test_mean_angle_loss_is_rkd_over_the_triplets():
    points = {"student": draw(5, 3), "teacher": draw(5, 2, seed=1)}

    def cosine(x, i, j, k):
        return float(torch.cosine_similarity(x[i] - x[j], x[k] - x[j], 0))

    triplets = list(itertools.permutations(range(5), 3))
    gaps = [abs(cosine(points["student"], *each) - cosine(points["teacher"], *each)) for each in triplets]
    expected = sum(gap**2 / 2 if gap < 1 else gap - 0.5 for gap in gaps) / 60
    assert float(Similarity("angle").loss(output_of(features=points["student"]), points["teacher"]).mean()) == pytest.approx(expected)


def test_mean_preserving_loss_is_the_papers():
    student, teacher = draw(6, 3), draw(6, 5, seed=1)
    gram = [torch.nn.functional.normalize(x @ x.T, dim=1) for x in (student, teacher)]
    expected = (gram[0] - gram[1]).norm() ** 2 / 36
    assert float(Similarity("preserving").loss(output_of(features=student), teacher).mean()) == pytest.approx(float(expected))


def test_coincident_examples_pull_on_nobody():
    features = draw(4, 3)
    features[1] = features[0]
    for kind in (Similarity(), Similarity("angle"), Similarity("preserving")):
        part = features.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(kind.loss(output_of(features=part), draw(4, 2, seed=1)).sum(), part)
        assert gradient.isfinite().all()
        assert kind.loss(output_of(features=part), features).abs().max() < 1e-14
    assert loss_of(Similarity(), [[1.0]] * 3, [[2.0]] * 3).tolist() == [0.0] * 3


def test_an_unknown_kind_is_refused():
    with pytest.raises(InputError, match="distance, angle, preserving"):
        Similarity("cosine")


def test_two_examples_have_no_angle():
    assert loss_of(Similarity("angle"), [[1.0], [2.0]], [[2.0], [5.0]]).tolist() == [0.0, 0.0]
