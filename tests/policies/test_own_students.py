"""Students of a policy's own learn as others do, apart from the policy's student, which is charged with their passes."""

import numpy as np
import pytest
import torch

from kd_env.benchmark.run_trial import make_env
from kd_env.benchmark.trial import Trial
from kd_env.distillation import Distillation
from kd_env.errors import InputError
from kd_env.policies import PolicyContext
from kd_env.types import Decision

SETTINGS = {"updates": 6, "student": "mlp(width=8)", "batch_size": 8, "reward_labels": 40, "precision": "float64"}


def started(count=3, seed=4, **settings):
    env = make_env(Trial("digits", "uniform", 0, settings={**SETTINGS, **settings}))
    env.reset(seed=0)
    context = PolicyContext(env, "own", "reward labels")
    return env, context, context.own_students(count, seed)


def decision(context, students, teachers):
    """All weight on one teacher for each student."""
    weights = torch.eye(context.num_teachers, dtype=torch.float64)[np.repeat(teachers, 8)]
    assert len(weights) == students.count * 8
    return context.decision({"response": weights})


def parameters(students):
    return students.state()["tensors"]["student.theta"]


def test_they_learn_as_single_students_do():
    env, context, students = started()
    single = Distillation(env.selection.data, env.selection.settings.distillation, 4)
    for _ in range(3):
        batch = students.batch([0, 2])
        observed = single.observe()
        assert batch.num_rows == 16
        assert batch.example_ids.tolist() == [*observed.example_ids] * 2
        torch.testing.assert_close(batch.teacher_logits[8:], observed.teacher_logits)
        students.teach(decision(context, students, [1, 0, 2]))
        single.apply(Decision({"response": torch.eye(4, dtype=torch.float64)[[2] * 8]}, {"response": 1.0}, 2.0))
    flat = torch.cat([parameter.detach().flatten() for parameter in single.student.parameters])
    torch.testing.assert_close(parameters(students)[2], flat, atol=1e-9, rtol=1e-7)
    rows = context.reward_positions
    expected = single.student.evaluate(*single.reward_split.at(rows))[1][0]
    assert students.evaluate(rows)[2] == pytest.approx(expected)


def test_they_continue_from_others():
    _, context, students = started()
    students.batch([0, 1, 2])
    students.teach(decision(context, students, [0, 1, 2]))
    before = parameters(students).clone()
    moments = students.state()["tensors"]["student.second"].clone()
    students.continue_from([2, 1, 2])
    assert torch.equal(parameters(students), before[[2, 1, 2]])
    assert torch.equal(students.state()["tensors"]["student.second"], moments[[2, 1, 2]])
    students.batch([0, 1, 2])
    students.teach(decision(context, students, [3, 3, 3]))
    assert torch.equal(parameters(students)[0], parameters(students)[2])
    assert not torch.equal(parameters(students)[0], parameters(students)[1])


def test_the_student_of_the_policy_stays_and_is_charged():
    env, context, students = started()
    run = env.selection.distillation
    before, passes = [parameter.clone() for parameter in run.student.parameters], int(run.state.forward_examples[0])
    students.batch([1])
    students.teach(decision(context, students, [0, 1, 2]))
    assert run.state.forward_examples[0] == passes + 3 * 8
    students.evaluate(context.reward_positions[:10])
    assert run.state.forward_examples[0] == passes + 3 * 8 + 3 * 10
    assert all(map(torch.equal, before, run.student.parameters))
    assert run.update[0] == 0


def test_they_are_saved_and_loaded():
    _, context, students = started()
    students.batch([0, 1, 2])
    students.teach(decision(context, students, [0, 1, 2]))
    students.batch([0])  # observed, and not yet taught
    _, other_context, twin = started(seed=9)
    twin.load_state(students.state())
    for pair in ((context, students), (other_context, twin)):
        pair[1].batch([0])
        pair[1].teach(decision(*pair, [3, 1, 0]))
    assert torch.equal(parameters(students), parameters(twin))


def test_a_student_that_diverges_has_the_lowest_score():
    _, context, students = started()
    students.batch([0, 1, 2])
    plain = decision(context, students, [0, 1, 2])
    strength = torch.ones(24, dtype=torch.float64)
    strength[8:16] = float("nan")
    students.teach(Decision(plain.weights, {"response": strength}, 2.0))
    scores = students.evaluate(context.reward_positions)
    assert np.isneginf(scores).tolist() == [False, True, False]
    students.continue_from([0, 2, 2])
    assert np.isfinite(students.evaluate(context.reward_positions)).all()


def test_reward_ce_teaches_the_rows_of_the_context_alone():
    _, context, _ = started(reward_ce=1.0)
    some = context.with_reward_positions(context.reward_positions[:7])
    assert some.reward_positions.tolist() == context.reward_positions[:7].tolist()
    assert len(some.reward_examples().known_labels()) == 7
    students = some.own_students(2, 0)
    assert students._run.reward_split.positions.tolist() == [some.reward_positions.tolist()] * 2
    assert len(context.reward_positions) == 40, "the context itself stays"


def test_one_student_is_refused():
    with pytest.raises(InputError, match=r"own_students\(count=1\): expected a whole number of at least 2"):
        started(1)


def test_labels_that_the_policy_does_not_have_are_refused():
    env, context, _ = started()
    others = np.setdiff1d(np.arange(len(env.selection.data.labels["reward"])), context.reward_positions)
    with pytest.raises(InputError, match=r"policy 'own': with_reward_positions got positions that are not in context\.reward_positions"):
        context.with_reward_positions(others[:2])
    with pytest.raises(InputError, match=r"policy 'own': own_students got positions that are not in context\.reward_positions"):
        context.own_students(2, 0, others[:4].reshape(2, 2))


def test_each_student_may_be_taught_other_labels():
    _, context, _ = started(reward_ce=1.0)
    taught = context.reward_positions[:6].reshape(2, 3)
    assert context.own_students(2, 0, taught)._run.reward_split.positions.tolist() == taught.tolist()
    for positions in (taught[:1], taught[0], taught[:, :0]):
        with pytest.raises(InputError, match=r"own_students: taught_positions has shape .*, expected \(2, n\)"):
            context.own_students(2, 0, positions)


def test_teachers_are_calibrated_as_those_of_the_policy_s_student():
    env, context, _ = started(calibrate_teachers=True)
    students = context.own_students(2, 0, context.reward_positions[:6].reshape(2, 3))
    expected = env.selection.distillation.teacher_temperatures
    assert not np.allclose(expected, 1.0)
    assert students._run.teacher_temperatures.tolist() == expected.tolist() * 2


def test_peers_are_refused():
    env = make_env(Trial("digits", "mutual_learning", 0, settings=SETTINGS))
    with pytest.raises(InputError, match="policy 'own' teaches students of its own, which would become peers"):
        PolicyContext(env, "own", "reward labels").own_students(2, 0)
