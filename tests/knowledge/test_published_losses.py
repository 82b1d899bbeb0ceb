"""Every knowledge type against its published loss, written out again in plain torch: value and gradient of the mean over a mini-batch.

Released codes that are followed: RepDistiller (AT.py, FitNet.py, RKD.py, SP.py), mdistiller (DKD.py), CA-MKD and MMKD. For the types
without one, the paper's formula or, for a surrogate, the formula on its page.
"""

import itertools

import numpy as np
import pytest
import torch
from comparing import draw
from scipy.optimize import linear_sum_assignment
from torch.nn.functional import adaptive_avg_pool2d, cosine_similarity, kl_div, mse_loss, normalize, smooth_l1_loss

from kd_env.knowledge import KNOWLEDGE, LossContext
from kd_env.knowledge.terms import parse_terms
from kd_env.types import Batch, ModelOutput

B, C, TAU = 6, 5, 4.0
LABELS = torch.tensor([0, 3, 1, 4, 4, 2])


def outputs(seed, width=7, side=4):
    """Random outputs; of an even seed with maps of half the side."""
    scores = draw(B, 2, 3, 3, seed=seed + 3)
    maps = draw(B, width, side, side, seed=seed + 4)
    return ModelOutput(
        3 * draw(B, C, seed=seed), draw(B, width, seed=seed + 1), draw(B, 3, width, seed=seed + 2), scores.softmax(3), maps=maps
    )


def softened_kl(student, teacher):
    return kl_div((student / TAU).log_softmax(1), (teacher / TAU).softmax(1), reduction="none").sum(1) * TAU**2


def response(student, teacher):
    return softened_kl(student.logits, teacher.logits).mean()


def tckd(student, teacher):
    p, q = ((logits / TAU).softmax(1) for logits in (teacher.logits, student.logits))
    mask = torch.nn.functional.one_hot(LABELS, C).bool()
    p, q = (torch.stack([each[mask], each.masked_fill(mask, 0.0).sum(1)], 1) for each in (p, q))
    return kl_div(q.log(), p, reduction="sum") * TAU**2 / B


def nckd(student, teacher):
    mask = 1000.0 * torch.nn.functional.one_hot(LABELS, C)
    p, log_q = (teacher.logits / TAU - mask).softmax(1), (student.logits / TAU - mask).log_softmax(1)
    return kl_div(log_q, p, reduction="sum") * TAU**2 / B


def contrast(student, teacher):
    pairs = itertools.permutations(range(B), 2)
    return torch.stack([mse_loss(student.logits[i] - student.logits[j], teacher.logits[i] - teacher.logits[j]) for i, j in pairs]).mean()


def layer(student, teacher):
    return mse_loss(student.layers, teacher.layers)


def patient(student, teacher):
    return (normalize(student.layers, dim=2) - normalize(teacher.layers, dim=2)).pow(2).sum(2).mean()


def hint(student, teacher):
    return mse_loss(student.features, teacher.features)


def cosine_hint(student, teacher):
    return (2 - 2 * cosine_similarity(student.features, teacher.features)).mean()


def feature_ensemble(student, teacher):
    return (normalize(student.features) - normalize(teacher.features)).abs().sum(1).mean()


def consistent_surrogate(student, teacher):
    s, t = student.features.detach().numpy(), teacher.features.numpy()
    distances = ((s[:, :, None] - t[:, None]) ** 2).sum(0)
    return mse_loss(student.features, teacher.features[:, linear_sum_assignment(distances)[1]])


def prior_surrogate(student, teacher):
    s, t = ((values - values.mean(0)).detach().numpy() for values in (student.features, teacher.features))
    similarity = np.square(t.T @ s).sum() / np.sqrt(np.square(s.T @ s).sum() * np.square(t.T @ t).sum())
    order = np.arange(7) * 0.6180339887498949 + np.abs(teacher.features.numpy()).sum(1, keepdims=True)
    learned = torch.from_numpy(order % 1.0 >= 1.0 - similarity)
    return (learned * (student.features - teacher.features) ** 2).mean()


def relation(student, teacher):
    grams = [cosine_similarity(each.layers[:, :, None], each.layers[:, None], dim=3) for each in (student, teacher)]
    return mse_loss(*grams)


def pairwise_distances(features):
    squares = features.pow(2).sum(1)
    distances = (squares[:, None] + squares - 2 * features @ features.t()).clamp(min=1e-12).sqrt()
    return distances * (1 - torch.eye(B))


def distance(student, teacher):
    distances = [pairwise_distances(each.features) for each in (student, teacher)]
    scaled = [each / each[each > 0].mean() for each in distances]
    return smooth_l1_loss(*scaled) * B / (B - 1)


def angle(student, teacher):
    angles = []
    for each in (student, teacher):
        differences = normalize(each.features[None] - each.features[:, None], dim=2)
        angles.append(torch.bmm(differences, differences.transpose(1, 2)))
    distinct = [(i, j, k) for i, j, k in itertools.permutations(range(B), 3)]
    return torch.stack([smooth_l1_loss(angles[0][index], angles[1][index]) for index in distinct]).mean()


def preserving(student, teacher):
    grams = [normalize(each.features @ each.features.t()) for each in (student, teacher)]
    return (grams[1] - grams[0]).pow(2).sum() / B**2


def attention(student, teacher):
    return kl_div(student.attention.log(), teacher.attention, reduction="none").sum(3).mean(2).sum(1).mean()


def map_hint(student, teacher):
    return mse_loss(student.maps, teacher.maps)


def attention_transfer(student, teacher):
    side = min(student.maps.shape[2], teacher.maps.shape[2])
    at = [normalize(adaptive_avg_pool2d(each.maps, (side, side)).pow(2).mean(1).reshape(B, -1)) for each in (student, teacher)]
    return (at[0] - at[1]).pow(2).mean()


def map_ensemble(student, teacher):
    return (normalize(student.maps.reshape(B, -1)) - normalize(teacher.maps.reshape(B, -1))).abs().sum(1).mean()


def map_similarity(student, teacher):
    flat = [each.maps.reshape(B, -1) for each in (student, teacher)]
    return (normalize(flat[1] @ flat[1].t()) - normalize(flat[0] @ flat[0].t())).pow(2).sum() / B**2


PUBLISHED = {
    "response": response,
    "tckd": tckd,
    "nckd": nckd,
    "contrast": contrast,
    "layer": layer,
    "layer(normalized=true)": patient,
    "hint": hint,
    "hint(normalized=true)": cosine_hint,
    "feature_ensemble": feature_ensemble,
    "consistent_surrogate": consistent_surrogate,
    "prior_surrogate": prior_surrogate,
    "relation": relation,
    "similarity(kind=distance)": distance,
    "similarity(kind=angle)": angle,
    "similarity(kind=preserving)": preserving,
    "attention": attention,
    "map_hint": map_hint,
    "attention_transfer": attention_transfer,
    "map_ensemble": map_ensemble,
    "map_similarity": map_similarity,
}
OF_PEERS = {"peer", "peer_ensemble"}


@pytest.mark.parametrize("text", PUBLISHED)
def test_the_loss_and_its_gradient_are_the_published_ones(text):
    (term,) = parse_terms(text)
    kind, sides = term.knowledge, (4, 2) if text in ("attention_transfer", "map_similarity") else (4, 4)
    values = [outputs(0, side=sides[0]), outputs(20, side=sides[1])]
    compared = getattr(values[0], kind.compares).requires_grad_()
    loss = kind.loss_in_context(values[0], kind.target(values[1]), LossContext(TAU, LABELS)).mean()
    expected = PUBLISHED[text](*values)
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-10)
    slopes = [torch.autograd.grad(each, compared, retain_graph=True)[0] for each in (loss, expected)]
    torch.testing.assert_close(slopes[0], slopes[1], rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("text", sorted(OF_PEERS))
def test_students_learn_from_each_other_as_published(text):
    """Mutual learning: the mean KL to the others. A peer ensemble: KL to the mean of the others' probabilities."""
    students = 3
    logits = draw(students * B, C).requires_grad_()
    output, ids = ModelOutput(logits, logits), np.tile(np.arange(B), students)
    teacher = torch.zeros(students * B, 2, C, dtype=torch.float64)
    detached = ModelOutput(logits.detach(), logits.detach())
    batch = Batch(np.zeros(students), np.zeros(students), ids, LABELS.repeat(students), teacher, (teacher[:, 0],) * 2, detached)
    (term,) = parse_terms(text)
    loss = term.knowledge.losses(output, batch, LossContext(TAU)).mean()
    of_students, parts = logits.view(students, B, C), []
    for s in range(students):
        others = [of_students[j].detach() for j in range(students) if j != s]
        log_q = (of_students[s] / TAU).log_softmax(1)
        targets = [(each / TAU).softmax(1) for each in others]
        targets = targets if text == "peer" else [sum(targets) / len(targets)]
        parts.append(sum(kl_div(log_q, each, reduction="batchmean") for each in targets) / len(targets) * TAU**2)
    expected = sum(parts) / students
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-10)
    slopes = [torch.autograd.grad(each, logits, retain_graph=True)[0] for each in (loss, expected)]
    torch.testing.assert_close(slopes[0], slopes[1], rtol=1e-5, atol=1e-9)


def test_every_type_is_here():
    elsewhere = {"peer_relation"}  # test_peer_relation.py
    assert {text.partition("(")[0] for text in PUBLISHED} | OF_PEERS | elsewhere == set(KNOWLEDGE)
