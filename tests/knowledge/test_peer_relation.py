"""Relations between examples as students of a population teach them to each other, against a reference written out in loops."""

import math

import numpy as np
import pytest
import torch

from kd_env.distillation import Distillation
from kd_env.distillation.reward_meter import RewardMeter
from kd_env.distillation.settings import distillation_settings
from kd_env.envs import credit
from kd_env.errors import InputError
from kd_env.knowledge import LossContext
from kd_env.knowledge.check import check_knowledge
from kd_env.knowledge.peer_relation import PeerRelation
from kd_env.types import Batch, Decision, ModelOutput


def huber(error):
    return 0.5 * error**2 if abs(error) < 1 else abs(error) - 0.5


def reference(own, peer, angle):
    """Distances and angles of RKD between two sets of vectors ``[B][D]``, for each example."""
    size = len(own)

    def length(vector):
        return math.sqrt(sum(value**2 for value in vector))

    def minus(first, second):
        return [a - b for a, b in zip(first, second, strict=True)]

    def distances(features):
        table = [[length(minus(first, second)) for second in features] for first in features]
        mean = sum(map(sum, table)) / (size * (size - 1))
        return [[value / mean for value in row] for row in table]

    def cosine(features, i, b, k):
        first, second = minus(features[i], features[b]), minus(features[k], features[b])
        return sum(a * c for a, c in zip(first, second, strict=True)) / (length(first) * length(second))

    mine, theirs = distances(own), distances(peer)
    losses = []
    for b in range(size):
        others = [i for i in range(size) if i != b]
        distance = sum(huber(mine[b][j] - theirs[b][j]) for j in others) / len(others)
        pairs = [(i, k) for i in others for k in others if i != k]
        turned = sum(huber(cosine(own, i, b, k) - cosine(peer, i, b, k)) for i, k in pairs) / len(pairs)
        losses.append(distance + angle * turned)
    return losses


def losses_of(features, ids=None, angle=2.0):
    """Losses ``[S, B]`` of students with ``features [S, B, D]``, by default all of the same examples."""
    students, size = features.shape[:2]
    flat = features.flatten(0, 1)
    output = ModelOutput(flat[:, :2], flat)
    batch = Batch(
        update=np.zeros(students),
        progress=np.zeros(students),
        example_ids=np.tile(np.arange(size), students) if ids is None else np.array(ids),
        labels=torch.zeros(len(flat), dtype=torch.int64),
        teacher_logits=torch.full((len(flat), 3, 2), float("nan")),  # no teacher is asked
        teacher_features=(),
        student=output,
    )
    losses = PeerRelation(angle).losses(output, batch, LossContext())
    torch.testing.assert_close(losses, losses[:, :1].expand(-1, 3), rtol=0, atol=0, equal_nan=True, msg="the same for all teachers")
    return losses[:, 0].view(students, size)


def drawn(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("angle", [0.0, 2.0, 0.5])
def test_three_students_as_in_a_reference(angle):
    features = drawn(3, 5, 4)
    listed = features.tolist()
    expected = []
    for s in range(3):
        first, second = (reference(listed[s], listed[j], angle) for j in range(3) if j != s)
        expected.append([(a + b) / 2 for a, b in zip(first, second, strict=True)])
    torch.testing.assert_close(losses_of(features, angle=angle), torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-12)
    torch.testing.assert_close(losses_of(features[:1].expand(3, -1, -1)), torch.zeros(3, 5, dtype=torch.float64))


def test_who_sees_another_example_or_is_broken_teaches_nobody():
    features = drawn(3, 4, 2)
    pair = losses_of(features[:2])
    ids = [0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 7]
    torch.testing.assert_close(losses_of(features, ids), torch.cat([pair, torch.zeros(1, 4, dtype=torch.float64)]))
    broken = features.clone()
    broken[2, 1, 1] = float("nan")
    torch.testing.assert_close(losses_of(broken)[:2], pair)


def test_what_the_others_say_is_not_differentiated():
    features = drawn(2, 4, 3).requires_grad_()
    (gradient,) = torch.autograd.grad(losses_of(features)[0].sum(), features)
    assert gradient[0].any()
    assert not gradient[1].any()


def test_it_is_a_sound_type_and_its_weight_is_checked():
    check_knowledge(PeerRelation())
    with pytest.raises(InputError, match=r"peer_relation\(angle=-1\): expected a number of at least 0"):
        PeerRelation(-1)


def test_first_order_credit_is_the_derivative_of_the_held_out_loss(digits_data):
    keywords = {"student": "mlp(width=8)", "num_students": 2, "batch_size": 6, "updates": 5, "precision": "float64"}
    settings = distillation_settings(digits_data.task, knowledge="response,peer_relation", optimizer="sgd(lr=0.00001)", **keywords)
    run = Distillation(digits_data, settings, 0)
    weights = dict.fromkeys(run.loss.terms, torch.full((12, run.num_teachers), 0.25, dtype=torch.float64))
    meter = RewardMeter(run.reward_split, run.seeds.tolist(), examples=20, measure="loss")
    run.apply(Decision(weights, dict.fromkeys(run.loss.terms, 1.0), 2.0))
    name = "peer_relation"
    estimate, exact = credit.first_order(run, meter, (name,))[name], credit.counterfactual(run, meter, (name,))[name]
    assert exact.abs().max() > 0
    torch.testing.assert_close(estimate, exact, rtol=1e-3, atol=1e-4 * float(exact.abs().max()))
