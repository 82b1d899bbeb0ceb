"""``ital`` against the released step, written out again for a linear student, and what the policy makes of it."""

import numpy as np
import pytest
import torch
from weighing import env_and_policy

from baselines.ital import ITAL, strengths
from kd_env.errors import InputError
from kd_env.testing import check_policy

EXAMPLES, TEACHERS, CLASSES, WIDTH, TEMPERATURE = 6, 3, 4, 5, 2.0


def drawn(seed=0):
    generator = torch.Generator().manual_seed(seed)
    teacher_logits = 3 * torch.randn(EXAMPLES, TEACHERS, CLASSES, generator=generator, dtype=torch.double)
    features = torch.randn(EXAMPLES, WIDTH, generator=generator, dtype=torch.double)
    classifier = torch.randn(CLASSES, WIDTH + 1, generator=generator, dtype=torch.double)
    return teacher_logits, features, classifier


def logits_of(classifier, features):
    return torch.cat([features, torch.ones(len(features), 1, dtype=torch.double)], 1) @ classifier.T


def losses_and_gradients(classifier, features, teacher_logits):
    """The loss of each example against the mean of the teachers, and its gradient by the classifier, example by example."""
    losses, gradients = [], []
    for h, teachers in zip(features, teacher_logits, strict=True):
        parameters = classifier.clone().requires_grad_()
        log_q = (parameters @ torch.cat([h, torch.ones(1, dtype=torch.double)]) / TEMPERATURE).log_softmax(0)
        p = (teachers / TEMPERATURE).softmax(1)
        loss = TEMPERATURE**2 * sum((p_k * (p_k.log() - log_q)).sum() for p_k in p) / len(p)
        losses.append(loss.item())
        gradients.append(torch.autograd.grad(loss, parameters)[0].numpy())
    return np.array(losses), np.stack(gradients)


def lowest_losses(teacher_logits):
    """The loss of a student that says what the teachers say on average."""
    p = (teacher_logits / TEMPERATURE).softmax(2)
    return TEMPERATURE**2 * (p * (p.log() - p.mean(1, keepdim=True).log())).sum((1, 2)).numpy() / TEACHERS


def released_step(classifier, features, teacher_logits, beta, step, first_order):
    """One round of the released code: ``choose_sur`` of the teacher, then ``learn_sur_cont`` of the learner."""
    losses, gradients = losses_and_gradients(classifier, features, teacher_logits)
    squares = (gradients**2).sum((1, 2))
    index = np.argmax(-beta * (step**2 * squares - 2 * step * (losses - lowest_losses(teacher_logits))))
    after = classifier - step * torch.from_numpy(gradients[index])
    if first_order:  # as ours: losses to first order, gradients before the step
        new_losses, new_gradients = losses - step * (gradients * gradients[index]).sum((1, 2)), gradients
    else:
        new_losses, new_gradients = losses_and_gradients(after, features, teacher_logits)
    exponent = -beta * (step**2 * squares - 2 * step * (losses - new_losses))
    shares = np.exp(exponent - exponent.max())
    shares /= shares.sum()
    correction = -2 * beta * step * new_gradients[index] + 2 * beta * step * (new_gradients * shares[:, None, None]).sum(0)
    return after + step * torch.from_numpy(correction)


def our_step(classifier, features, teacher_logits, beta, step):
    """A step of gradient descent on the loss with our strengths."""
    parameters = classifier.clone().requires_grad_()
    logits = logits_of(parameters, features)
    log_q, p = (logits / TEMPERATURE).log_softmax(1)[:, None], (teacher_logits / TEMPERATURE).softmax(2)
    loss = TEMPERATURE**2 * (p * (p.log() - log_q)).sum(2).mean(1)  # [B]
    ours = strengths(teacher_logits, logits.detach(), features, TEMPERATURE, 1, beta, step)
    (gradient,) = torch.autograd.grad((ours * loss).mean(), parameters)
    return classifier - step * gradient


@pytest.mark.parametrize("beta", [3.0, 300.0])
@pytest.mark.parametrize("step", [0.01, 0.3])
@pytest.mark.parametrize("seed", [0, 1])
def test_a_step_is_the_released_one_to_first_order(beta, step, seed):
    teacher_logits, features, classifier = drawn(seed)
    expected = released_step(classifier, features, teacher_logits, beta, step, first_order=True)
    torch.testing.assert_close(our_step(classifier, features, teacher_logits, beta, step), expected, rtol=0, atol=1e-9)


def test_the_deviation_from_the_released_step_vanishes_with_the_step():
    teacher_logits, features, classifier = drawn()
    deviations = []
    for step in (1e-1, 1e-2, 1e-3):
        beta = 0.5 / step  # the second term then has the size of the first
        released = released_step(classifier, features, teacher_logits, beta, step, first_order=False)
        ours = our_step(classifier, features, teacher_logits, beta, step)
        deviations.append(float((ours - released).norm() / (released - classifier).norm()))
    assert deviations[1] < 0.2 * deviations[0]
    assert deviations[2] < 0.2 * deviations[1]
    assert deviations[2] < 1e-2


def test_teachers_pick_the_examples_that_the_student_knows_least():
    teacher_logits, features, classifier = drawn()
    losses, _ = losses_and_gradients(classifier, features, teacher_logits)
    logits = logits_of(classifier, features)
    ours = strengths(teacher_logits, logits, features, TEMPERATURE, 2, 0.0, 1e-6)
    wanted = np.argsort(losses - lowest_losses(teacher_logits))[-2:]
    assert sorted(np.flatnonzero(ours.numpy())) == sorted(wanted)
    assert ours[wanted].tolist() == [EXAMPLES / 2] * 2
    with_belief = strengths(teacher_logits, logits, features, TEMPERATURE, 2, 500.0, 1e-3)
    assert float(with_belief.mean()) == pytest.approx(1.0)
    assert (with_belief < 0).any(), "the student moves away from what was not picked"


def test_every_student_of_a_population_gets_strengths_of_its_own_mini_batch():
    env, policy = env_and_policy("ital(selected=4,beta=100.0)", num_students=2, knowledge="response,peer")
    batch, rows = policy.context.batch(), env.selection.settings.distillation.batch_size
    decision = policy.rule.decide(batch)
    temperature = env.selection.settings.distillation.temperature
    for student in range(2):
        part = slice(student * rows, (student + 1) * rows)
        output = batch.student
        expected = strengths(batch.teacher_logits[part], output.logits[part], output.features[part], temperature, 4, 100.0, 1e-3)
        torch.testing.assert_close(decision.strengths["response"][part].double(), expected, rtol=1e-5, atol=1e-6)
    assert torch.equal(
        decision.weights["response"], torch.full_like(decision.weights["response"], 1 / decision.weights["response"].shape[1])
    )


def test_it_follows_the_protocol():
    check_policy(ITAL)


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        ("ital(selected=0)", "whole number of at least 1"),
        ("ital(beta=-1)", "beta"),
        ("ital(step=0)", "step"),
    ],
)
def test_options_that_cannot_work_are_refused(policy, message):
    with pytest.raises(InputError, match=message):
        env_and_policy(policy)
