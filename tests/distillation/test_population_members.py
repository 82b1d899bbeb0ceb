"""Students taken out of a population, and populations taken away and brought back: all continue to the last bit."""

import pytest
from runs_apart import BOTH, CASES, IMAGE, TEXT, alone, assert_equal, follow, start_case
from small_runs import digest, drive, start

from kd_env.errors import InputError

MEMBERS = ["adam", "sgd", "adamw, labels", "extra reward loss", "text, layers"]


@pytest.mark.parametrize(("case", "observed"), list(zip(MEMBERS, BOTH, strict=False)))
def test_a_member_continues_alone_as_it_would_among_the_others(request, case, observed):
    run = start_case(request, case, updates=40)
    drive(run, 6)
    run.reset_student(1, 50)
    drive(run, 5)
    if observed:
        run.observe()
    members = [run.of_student(s) for s in range(run.num_students)]
    assert [member.num_students for member in members] == [1] * run.num_students
    assert [member.update.tolist() for member in members] == [[5 if s == 1 else 11] for s in range(run.num_students)]
    untouched = digest(run)
    drive(members[0].fork(), 2)
    assert digest(run) == untouched
    follow(run, members, 12, rtol=1e-10, atol=1e-10)
    for s, member in enumerate(members):
        assert_equal(run, s, member, rtol=1e-10, atol=1e-10)


def test_a_member_before_the_first_update_is_a_fresh_student(request):
    run = start_case(request, "adam")
    assert digest(run.of_student(2)) == digest(alone(run, 2, 7))


SNAPSHOTS = {
    **{name: CASES[name] for name in ("sgd", "text, all others")},
    "adam, dropout": ("digits_data", {"student": "mlp(width=8,dropout=0.3)", "precision": "float32", "optimizer": "adam(lr=0.01)"}, 0),
    "extra reward loss, dropout": ("digits_data", {"student": "mlp(width=8,dropout=0.3)", "reward_ce": 0.5}, 0),
}


def out_of_phase(data, case, seed):
    """A population whose students stand at different updates."""
    keywords = (IMAGE if data.task.kind == "image" else TEXT) | SNAPSHOTS[case][1]
    run = start(data, seed, **keywords)
    drive(run, 4)
    run.reset_student(1, 60)
    drive(run, 2)
    run.reset_student(0, 61)
    return run


@pytest.mark.parametrize(("case", "observed"), list(zip(SNAPSHOTS, BOTH, strict=False)))
def test_a_restored_population_continues_to_the_last_bit(request, case, observed):
    data = request.getfixturevalue(SNAPSHOTS[case][0])
    run, undisturbed = (out_of_phase(data, case, 2) for _ in range(2))
    if observed:
        run.observe()
    state = run.snapshot()
    outcomes = drive(run, 6)
    assert repr(drive(undisturbed, 6)) == repr(outcomes), "taking a snapshot changes nothing"
    other = out_of_phase(data, case, 30)
    other.restore(state)
    assert other.snapshot() == state
    assert other.seeds.tolist()[:2] == [61, 60]
    assert other.update.tolist()[:2] == [0, 2]
    fork = other.fork()
    assert repr(drive(other, 6)) == repr(outcomes)
    assert digest(other) == digest(run) == digest(undisturbed)
    fork.reset_student(0, 5)
    drive(fork, 2)
    assert digest(other) == digest(run), "forks are independent"
    run.restore(state)  # back in time, too
    assert repr(drive(run, 6)) == repr(outcomes)
    assert digest(run) == digest(other)


def test_a_snapshot_of_another_number_of_students_is_refused(request):
    state = start_case(request, "extra reward loss").snapshot()
    with pytest.raises(InputError, match=r"these differ: num_students$"):
        start_case(request, "extra reward loss", num_students=2).restore(state)
